// Tables of a deployment: its nights, its versions with what can be decided about them, its schedules.

import { el, outward, way } from "./dom.js";
import { nightName, precise, share, short, took, until, versionName, when, words } from "./format.js";

function table(name, head, rows) {
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

function cell(name, ...children) {
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

export function versionsTable({ versions, numbers, active, chosen }, { decide, choose }) {
  const rows = versions.map((version) => {
    const name = versionName(version.id, versions, numbers);
    const actions = actionsFor(version).map(([verb, kind]) =>
      el(
        "button",
        {
          type: "button",
          class: kind,
          "aria-label": `${verb} ${name}`,
          "data-focus": `${verb}-${version.id}`,
          on: { click: () => decide[verb](version) },
        },
        verb,
      ),
    );
    const look = el(
      "button",
      {
        type: "button",
        class: "link",
        "aria-pressed": String(chosen === version.id),
        "data-focus": `look-${version.id}`,
        on: { click: () => choose(version.id) },
      },
      name,
    );
    return el(
      "tr",
      { class: version.id === active ? "active" : "" },
      el("th", { scope: "row" }, look, " ", el("code", { class: "muted", title: version.id }, short(version.id))),
      cell("Status", el("span", { class: `outcome ${version.status}` }, version.status)),
      cell("Since", when(version.created_at)),
      cell("From", version.parent ? versionName(version.parent, versions, numbers) : "–"),
      cell("Gates", gates(version.gates)),
      el("td", { class: "buttons" }, actions),
    );
  });
  return table("Versions", ["Version", "Status", "Since", "From", "Gates", "Decide"], rows);
}

// What can be decided about a version in its state; what the service refuses all the same, it says.
function actionsFor(version) {
  const possible = {
    candidate: [
      ["Promote", "primary"],
      ["Reject", ""],
    ],
    active: [
      ["Roll back", ""],
      ["Revoke", "quiet"],
    ],
    retired: [
      ["Promote", "quiet"],
      ["Revoke", "quiet"],
    ],
    rejected: [["Promote", "quiet"]],
  };
  const found = possible[version.status] ?? [];
  return found.filter(([verb]) => version.parent || verb === "Promote");
}

export function gates(given) {
  if (!given?.length) return "–";
  const refused = given.filter((gate) => gate.passed === false);
  const words_ = refused.length
    ? `refused: ${refused.map((gate) => words(gate.name)).join(", ")}`
    : `${given.filter((gate) => gate.passed).length} passed`;
  return el(
    "span",
    {
      class: refused.length ? "outcome failed" : "",
      title: given
        .map((gate) => gate.message ?? "")
        .filter(Boolean)
        .join("; "),
    },
    words_,
  );
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
      cell(
        "Next",
        schedule.suspend
          ? "suspended"
          : schedule.next_at
            ? `${when(schedule.next_at)} (${until(schedule.next_at)})`
            : "when traffic calls for it",
      ),
      cell("Last", when(schedule.last_fired_at)),
    ),
  );
  return table("Schedules", ["Falls asleep", "Next", "Last"], rows);
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
