"""What a model is asked. SEAL's words where its protocol states them (of SQuAD `implications` and `ask`); all others are ours."""

from __future__ import annotations

IMPLICATIONS = (
    "Let's read the following passage and produce a list of implications derived directly or indirectly from the content.\n\n"
    "Passage:\n{context}\n\nImplications:\n"
)
"""SEAL's; a context is `{title}\\n{passage}`."""
ASK = "Let's answer a question directly and concisely.\nQuestion: {question}\nAnswer:\n"
"""SEAL's; a question is TOPIC."""
TOPIC = "Topic: {title}\n{question}"

QUESTION = "Let's read the following passage and ask one question about its content.\n\nPassage:\n{context}\n\nQuestion:\n"
ANSWER = (
    "Let's read the following passage and answer a question directly and concisely.\n\n"
    "Passage:\n{context}\n\nQuestion: {question}\nAnswer:\n"
)
JUDGE = (
    "Let's grade a student's answer. It is right if it fully conveys the gold answer and does not contradict it; it may say more. "
    "No knowledge from elsewhere counts.\nQuestion: {question}\nGold answer: {wanted}\nStudent's answer: {said}\n"
    "Is the student's answer right? Answer yes or no.\nVerdict:\n"
)
SQUAD: dict[str, str] = {"implications": IMPLICATIONS, "ask": ASK, "question": QUESTION, "answer": ANSWER, "judge": JUDGE}

EDIT = (
    "These are examples of a puzzle. Each output follows from its input by one rule.\n\n{context}\n\n"
    "Before you are asked for the output of another input you are trained on these examples. Choose how. Answer with one JSON object and "
    "nothing else, with exactly these keys:\n"
    '"basic_augmentations": true or false, whether examples are also turned and mirrored\n'
    '"size_augmentations": true or false, whether they are also made larger\n'
    '"chain_augmentations": true or false, whether they are also turned or mirrored and then made larger\n'
    '"repeat_augmentations": true or false, whether they are also repeated side by side\n'
    '"strategy": "train_using_all_tokens" or "train_using_output_tokens"\n'
    '"learning_rate": a number\n'
    '"num_train_epochs": a whole number\n'
)
PUZZLE = "Each output follows from its input by one rule. Give the last output.\n\n"
"""In front of every item."""
ARC: dict[str, str] = {"free": EDIT}
