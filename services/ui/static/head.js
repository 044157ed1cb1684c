// The top of a deployment's page: how it is, in four numbers, and what can be done at once.

import { el } from "./dom.js";
import { nightName, plural, share, short, until, versionName, when } from "./format.js";
import { state } from "./overview.js";

export function head({ deployment, status, made, next, versions, numbers, back }, { rollBack, startSleep }) {
  const active = status.active_version;
  const facts = [
    ["Serves", versionName(active, versions, numbers), short(active)],
    ["Recall", share(made?.recall), made ? `of ${nightName(made.id, numbers)}` : "nothing learned yet"],
    ["Waiting", plural(status.pending.experiences, "experience"), plural(status.pending.tokens, "token")],
    ["Next sleep", next ? until(next) : "when told", next ? when(next) : "no schedule"],
  ];
  const { model } = deployment.base_model;
  const base = el("p", { class: "muted clip", title: model }, model.split("/").slice(-2).join("/"));
  return [
    el(
      "div",
      { class: "title" },
      el("div", {}, el("h1", {}, deployment.name), state(status.state), base),
      el(
        "div",
        { class: "actions" },
        back ? button("Roll back", { "data-focus": "back" }, rollBack) : null,
        button("Start a sleep", { class: "primary", "data-focus": "sleep", disabled: Boolean(status.current_sleep) }, startSleep),
      ),
    ),
    deployment.error ? el("p", { class: "wrong", role: "alert" }, deployment.error) : null,
    stats(facts),
  ];
}

export function button(words, attributes, click) {
  return el("button", { type: "button", ...attributes, on: { click } }, words);
}

// [name, value, more] each.
export function stats(facts) {
  const entries = facts.map(([name, value, more]) =>
    el("div", {}, el("dt", {}, name), el("dd", {}, value), el("dd", { class: "muted" }, more)),
  );
  return el("dl", { class: "stats" }, entries);
}

export function nextSleep(schedules) {
  const begins = ({ suspend, next_at: next, cooling_until: cooling }) => !suspend && next && next >= (cooling ?? 0);
  const times = (schedules ?? []).filter(begins).map((schedule) => schedule.next_at);
  return times.length ? Math.min(...times) : null;
}
