// What is under way: a rollout, and the night that runs, as far as it is.

import { el, way } from "./dom.js";
import { nightName, versionName, when, words } from "./format.js";
import { button } from "./head.js";
import { nightButtons } from "./interventions.js";
import { rolloutWords } from "./versions.js";

// What there is to show, from what was gathered and the last word on progress.
export function tonightOf({ status, nights, rollouts, versions, numbers }, progress) {
  const rollout = rollouts?.find((one) => one.status === "running") ?? null;
  const night = nights.find((one) => one.id === status.current_sleep);
  if (!night) return { rollout, night: null, versions, numbers };
  const far = progress && progress.seq > night.last_seq ? progress.data : night.progress;
  const { id, phase, waiting, attempt, created_at, result_version, error } = night;
  const how = { status: night.status, result_version, error };
  const shown = { id, phase, waiting, attempt, created_at, ...how, step: far.step, total: far.total_steps };
  return { rollout, night: shown, versions, numbers };
}

export function tonight({ rollout, night, versions, numbers }, { deployment, decided, abort }) {
  return [
    rollout ? rolling(rollout, versionName(rollout.to_version, versions, numbers), abort) : null,
    night ? sleeping(night, nightName(night.id, numbers), deployment, decided) : null,
  ];
}

function rolling(rollout, name, abort) {
  const end = button("End the canary", { "data-focus": "abort" }, () => abort(rollout, name));
  return card("Rollout", [
    el("p", {}, el("strong", {}, `${words(rollout.kind)} to ${name}`), ` ${rolloutWords(rollout)}`),
    rollout.canary ? el("div", { class: "actions" }, end) : null,
  ]);
}

function sleeping(night, name, deployment, decided) {
  const again = night.attempt > 1 ? `, attempt ${night.attempt}` : "";
  const watch = { class: "button", "data-focus": "watch", href: way("deployments", deployment, "nights", night.id) };
  return card("Tonight", [
    el("p", {}, el("strong", {}, name), ` ${night.status}, since ${when(night.created_at)}${again}`),
    ...progressOf(night.waiting ?? words(night.phase ?? night.status), night.step, night.total),
    el("div", { class: "actions" }, el("a", watch, "Watch"), nightButtons(night, name, decided)),
  ]);
}

// A stage, and how far it is; `more` is said behind the numbers.
export function progressOf(stage, step, total, more = "") {
  const far = total ? ` ${step} of ${total}${more}` : "";
  return [
    el("p", { class: "stage" }, el("span", {}, stage), el("span", { class: "muted" }, far)),
    el("progress", { "aria-label": "Progress of the stage", ...(total ? { max: total, value: step } : {}) }),
  ];
}

export function card(name, children) {
  return el("div", { class: "card live", role: "group", "aria-label": name }, children);
}

// Places [level, expert] that are written now: the fast one, where it serves, and the one that tonight opened.
export function openNow({ nights, status }) {
  const events = nights.find((night) => night.id === status.current_sleep)?.events ?? [];
  const opened = events.filter((event) => event.data.into).map((event) => event.data.into);
  const fast = status.fast_memory?.chunks || events.some((event) => event.type === "deployment.fast_memory_live");
  return fast ? [[0, 0], ...opened] : opened;
}
