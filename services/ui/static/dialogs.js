// What an operator decides, each in a dialog that says what will happen and asks why.

import { Problem, ask, path } from "./api.js";
import { el } from "./dom.js";
import { count } from "./format.js";

const ID_BYTES = 9;

// Opens a dialog; resolves to the answer of `send`, or null where it was closed. What is refused is told in it.
export function decide({ title, about, fields = [], verb, danger = false, send }) {
  return new Promise((resolve) => {
    const wrong = el("p", { class: "wrong", role: "alert" });
    const act = el("button", { type: "submit", class: danger ? "danger" : "primary" }, verb);
    const close = el("button", { type: "button", on: { click: () => dialog.close() } }, "Cancel");
    const submit = async (event) => {
      event.preventDefault();
      act.disabled = true;
      wrong.textContent = "";
      try {
        result = await send(Object.fromEntries(new FormData(form)));
        dialog.close();
      } catch (problem) {
        if (!(problem instanceof Problem)) throw problem;
        wrong.textContent = problem.message;
      } finally {
        act.disabled = false;
      }
    };
    const form = el(
      "form",
      { on: { submit } },
      el("h2", { id: "dialog-title" }, title),
      el("p", {}, about),
      fields,
      wrong,
      el("div", { class: "actions" }, close, act),
    );
    const dialog = el("dialog", { "aria-labelledby": "dialog-title" }, form);
    let result = null;
    const opener = document.activeElement?.dataset?.focus;
    dialog.addEventListener("close", () => {
      dialog.remove();
      // What opened it may have been drawn again meanwhile.
      if (opener) document.querySelector(`[data-focus="${CSS.escape(opener)}"]`)?.focus();
      resolve(result);
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

export function field(label, attributes, hint) {
  const name = attributes.name;
  const input = el(attributes.rows ? "textarea" : "input", {
    id: `field-${name}`,
    ...(hint ? { "aria-describedby": `hint-${name}` } : {}),
    ...attributes,
  });
  return el(
    "div",
    { class: "field" },
    el("label", { for: `field-${name}` }, label),
    input,
    hint ? el("small", { id: `hint-${name}` }, hint) : null,
  );
}

export function choice(label, name, options) {
  const radios = options.map(([value, words], i) =>
    el("label", { class: "radio" }, el("input", { type: "radio", name, value, checked: i === 0 }), el("span", {}, words)),
  );
  return el("fieldset", {}, el("legend", {}, label), radios);
}

function reason() {
  return field("Reason", { name: "reason", rows: 2, required: true, maxlength: 512 }, "Kept in the audit log.");
}

export function startSleep(deployment, status) {
  const { experiences, tokens } = status.pending;
  return decide({
    title: `Put ${deployment.name} to sleep`,
    about: `${count(experiences)} experiences wait, ${count(tokens)} tokens. It goes on answering meanwhile.`,
    fields: [
      field(
        "Seed",
        { name: "seed", type: "number", min: 0, max: 2 ** 31 - 1, value: 0, required: true },
        "The same seed and experiences make the same night.",
      ),
    ],
    verb: "Start the sleep",
    send: ({ seed }) =>
      ask("/v1/sleeps", { method: "POST", body: { deployment: deployment.id, seed: Number(seed), id: newSleep() } }),
  });
}

// Chosen here, so that a request whose answer was lost can be repeated and begins nothing twice.
function newSleep() {
  return `slp_${[...crypto.getRandomValues(new Uint8Array(ID_BYTES))].map((byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}

export function cancelSleep(sleep, name) {
  return decide({
    title: `Cancel ${name}`,
    about: "The deployment goes on as the version that fell asleep. The night can be tried again from what it has sealed.",
    verb: "Cancel the night",
    danger: true,
    send: () => ask(`${path("sleeps", sleep)}/cancel`, { method: "POST" }),
  });
}

export function pauseSleep(sleep, name, status) {
  const soon = status !== "pausing";
  return decide({
    title: `Pause ${name}`,
    about: soon
      ? "Its GPUs are free then, and the deployment answers as before. No other night of it begins meanwhile."
      : "It stops at once, and not at its next checkpoint: what it has learned since the last one is learned again.",
    fields: soon
      ? [
          choice("When", "checkpoint", [
            ["save", "At its next checkpoint"],
            ["latest", "At once, back to its last checkpoint"],
          ]),
        ]
      : [],
    verb: "Pause the night",
    send: ({ checkpoint = "latest" }) => ask(`${path("sleeps", sleep)}/pause`, { method: "POST", body: { checkpoint } }),
  });
}

export function resumeSleep(sleep, name) {
  return decide({
    title: `Resume ${name}`,
    about: "It goes on from what is sealed, when it is its turn.",
    verb: "Resume the night",
    send: () => ask(`${path("sleeps", sleep)}/resume`, { method: "POST" }),
  });
}

export function retrySleep(sleep, name) {
  return decide({
    title: `Try ${name} again`,
    about: "The same night, on the same experiences.",
    fields: [
      choice("From", "from", [
        ["last_checkpoint", "What is sealed"],
        ["start", "The start: nothing of what it did before is used"],
      ]),
    ],
    verb: "Try again",
    send: (body) => ask(`${path("sleeps", sleep)}/retry`, { method: "POST", body }),
  });
}

export function promote(version, { name, active, refused }) {
  const body = ({ strategy, percent, seconds, override, reason: why }) => ({
    ...(strategy === "canary" ? { canary: { percent: Number(percent), seconds: Number(seconds) } } : {}),
    expected_active_version: active,
    override_gates: override === "on",
    reason: why,
  });
  const override = el(
    "label",
    { class: "radio warn" },
    el("input", { type: "checkbox", name: "override" }),
    el("span", {}, `Promote although its gate refused it (${refused.join(", ")})`),
  );
  return decide({
    title: `Promote ${name(version.id)}`,
    about: `It takes the place of ${name(active)} on every replica.`,
    fields: [
      choice("How", "strategy", [
        ["immediate", "At once"],
        ["canary", "To some of the traffic first"],
      ]),
      el(
        "div",
        { class: "pair canary" },
        field("Percent", { name: "percent", type: "number", min: 1, max: 50, value: 10 }),
        field("Seconds", { name: "seconds", type: "number", min: 1, value: 600 }),
      ),
      refused.length ? override : null,
      reason(),
    ],
    verb: "Promote",
    send: (given) => ask(`${path("versions", version.id)}/promote`, { method: "POST", body: body(given) }),
  });
}

export function rollBack(deployment, { name, active, to }) {
  return decide({
    title: `Roll back ${deployment.name}`,
    about: `${name(to)} serves again in place of ${name(active)}. What only ${name(active)} has learned is not answered any more.`,
    fields: [reason()],
    verb: "Roll back",
    danger: true,
    send: ({ reason: why }) =>
      ask(`${path("deployments", deployment.id)}/rollback`, {
        method: "POST",
        body: { expected_active_version: active, reason: why },
      }),
  });
}

export function abortRollout(rollout, name) {
  return decide({
    title: `End the canary of ${name}`,
    about: `All clients are answered by the version before it again, and ${name} stays a candidate.`,
    verb: "End the canary",
    danger: true,
    send: () => ask(`${path("rollouts", rollout.id)}/abort`, { method: "POST" }),
  });
}

export function reject(version, { name }) {
  return decide({
    title: `Reject ${name(version.id)}`,
    about: "It will not be promoted. Its folder is kept.",
    fields: [reason()],
    verb: "Reject",
    danger: true,
    send: (body) => ask(`${path("versions", version.id)}/reject`, { method: "POST", body }),
  });
}

export function revoke(version, { name, active }) {
  return decide({
    title: `Revoke ${name(version.id)}`,
    about:
      version.id === active
        ? "It serves now: the deployment is rolled back at once, and this version never serves again."
        : "This version never serves again.",
    fields: [reason()],
    verb: "Revoke",
    danger: true,
    send: (body) => ask(`${path("versions", version.id)}/revoke`, { method: "POST", body }),
  });
}
