// Tables of a deployment and of a night: nights, gates, schedules, and where to look in Ray.

import { el, outward, way } from "./dom.js";
import { nightName, precise, share, short, took, until, versionName, when, words } from "./format.js";

export function table(name, head, rows) {
  return el(
    "div",
    { class: "scroll" },
    el(
      "table",
      { class: "list stack", "aria-label": name },
      el(
        "thead",
        {},
        el(
          "tr",
          {},
          head.map((word) => el("th", { scope: "col" }, word === "Decide" ? el("span", { class: "unseen" }, word) : word)),
        ),
      ),
      el("tbody", {}, rows),
    ),
  );
}

export function cell(name, ...children) {
  return el("td", { "data-name": name }, children);
}

export function nightsTable({ nights, versions, numbers, deployment, has_more }, { more }) {
  if (!nights.length) return el("p", { class: "empty" }, "It has not slept yet.");
  const rows = nights.map((night) =>
    el(
      "tr",
      {},
      el(
        "th",
        { scope: "row" },
        el(
          "a",
          { href: way("deployments", deployment, "nights", night.id), "data-focus": `night-${night.id}` },
          nightName(night.id, numbers),
        ),
      ),
      cell("Began", when(night.created_at)),
      cell("Took", night.finished_at ? took(night.finished_at - night.created_at) : "runs"),
      cell("Outcome", el("span", { class: `outcome ${night.outcome ?? night.status}` }, words(night.outcome ?? night.status))),
      cell("Recall", share(night.recall)),
      cell("Kept", share(night.kept)),
      cell("Made", night.result_version ? versionName(night.result_version, versions, numbers) : "–"),
    ),
  );
  const older = has_more
    ? el("button", { type: "button", class: "quiet", "data-focus": "older", on: { click: more } }, "Earlier nights")
    : null;
  return [table("Nights", ["Night", "Began", "Took", "Outcome", "Recall", "Kept", "Made"], rows), older];
}

// The criteria of a night's gate, each beside its limit.
export function gateTable(given) {
  if (!given.length) return el("p", { class: "empty" }, "The gate has not been reached.");
  const rows = given.map((gate) => {
    const said = gate.passed === null ? "not measured" : gate.passed ? "passed" : "failed";
    const kind = `outcome ${gate.passed === false ? "failed" : gate.passed ? "active" : "unknown"}`;
    const measured = [precise(gate.value), el("span", { class: "muted" }, ` ${gate.limit === null ? "" : `limit ${gate.limit}`}`)];
    return el(
      "tr",
      { title: gate.message ?? "" },
      el("th", { scope: "row" }, words(gate.name)),
      cell("Measured", measured),
      cell("Verdict", el("span", { class: kind }, said)),
    );
  });
  return table("Gate", ["Criterion", "Measured", "Verdict"], rows);
}

export function schedulesTable(schedules) {
  if (schedules === null) return el("p", { class: "empty" }, "This key may not read schedules.");
  if (!schedules.length)
    return el("p", { class: "empty" }, "It sleeps when it is told to. POST /v1/schedules lets it sleep by itself.");
  const rows = schedules.map((schedule) =>
    el(
      "tr",
      {},
      el("th", { scope: "row" }, schedule.trigger.any_of.map(trigger).join("; or ")),
      cell("Next", nextTime(schedule)),
      cell("Last", when(schedule.last_fired_at)),
    ),
  );
  return table("Schedules", ["Falls asleep", "Next", "Last"], rows);
}

function nextTime({ suspend, cooling_until: cooling, next_at: next }) {
  if (suspend) return "suspended";
  const said = next ? `${when(next)} (${until(next)})` : "when traffic calls for it";
  return cooling ? `${said}, but not before ${when(cooling)}: the gate refused the last versions` : said;
}

function trigger(one) {
  if (one.type === "cron") return `cron ${one.expr} (${one.timezone})`;
  if (one.type === "token_budget") return `at ${one.pending_tokens} tokens`;
  if (one.type === "experience_count") return `at ${one.count} experiences`;
  return `after ${took(one.seconds)} of quiet`;
}

export function links(dashboard, jobs, runs) {
  const base = String(dashboard).replace(/\/+$/, "");
  const items = [
    ...jobs.map((job) => outward(`${base}/#/jobs/${encodeURIComponent(job)}`, `Ray job ${job}`)),
    ...runs.map((run) => outward(`${base}/api/train/v2/runs/v1`, `Train run ${run}`)),
  ];
  return items.length
    ? el(
        "ul",
        { class: "links" },
        items.map((item) => el("li", {}, item)),
      )
    : el("p", { class: "empty" }, "No job has been submitted.");
}
