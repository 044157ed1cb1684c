"""A question to which every replica of a version must give the same answer: a checksum says what lies in memory, this what comes out.

The prompt is the token with which texts begin, the answer is greedy. Two engines that read the same memory in batches of different sizes
differ in the last digits, so each token comes with how far it was ahead of the next likely one: `replies.agree` knows where digits decided.
"""

from __future__ import annotations

from collections.abc import Sequence

from vllm import SamplingParams

from actors.engine import MemoryEngine
from actors.replies import Said

TOKENS = 8


async def known_answer(engine: MemoryEngine, prompt: Sequence[int]) -> tuple[Said, ...]:
    """Greedy tokens after the prompt."""
    params = SamplingParams(max_tokens=TOKENS, temperature=0.0, logprobs=2, ignore_eos=True, detokenize=False)
    (completion,) = (await engine.generate(prompt, params)).outputs
    said = []
    for token, place in zip(completion.token_ids, completion.logprobs or [], strict=True):
        first, second = sorted((entry.logprob for entry in (place or {}).values()), reverse=True)[:2]
        said.append(Said(token, round(first - second, 3)))
    return tuple(said)
