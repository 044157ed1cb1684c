// The versions of a deployment: how they are, what their gates said, what can be decided about them, and what was.

import { el } from "./dom.js";
import { plural, short, versionName, when, words } from "./format.js";
import { button } from "./head.js";
import { cell, table } from "./tables.js";

const DECISIONS = {
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
// By status. What the service refuses all the same, it says.

export function versionsTable({ versions, numbers, active, rollouts, chosen }, { decide, choose }) {
  const name = (id) => versionName(id, versions, numbers);
  const row = (version) => {
    const look = { class: "link", "aria-pressed": String(chosen === version.id), "data-focus": `look-${version.id}` };
    const id = el("code", { class: "muted", title: version.id }, short(version.id));
    const verbs = (DECISIONS[version.status] ?? []).filter(([verb]) => version.parent || verb === "Promote");
    const decisions = verbs.map(([verb, kind]) => {
      const attributes = { class: kind, "aria-label": `${verb} ${name(version.id)}`, "data-focus": `${verb}-${version.id}` };
      return button(verb, attributes, () => decide[verb](version));
    });
    return el(
      "tr",
      {},
      el(
        "th",
        { scope: "row" },
        button(name(version.id), look, () => choose(version.id)),
        " ",
        id,
      ),
      cell("Status", el("span", { class: `outcome ${version.status}` }, version.status)),
      cell("Since", when(version.created_at)),
      cell("From", version.parent ? name(version.parent) : "–"),
      cell("Gates", gates(version.gates)),
      el("td", { class: "buttons" }, decisions),
    );
  };
  const told = (rollouts ?? []).map((rollout) => el("li", {}, history(rollout, name)));
  const all = table("Versions", ["Version", "Status", "Since", "From", "Gates", "Decide"], versions.map(row));
  return [all, told.length ? [el("h3", {}, "Rollouts"), el("ul", { class: "rollouts" }, told)] : null];
}

function gates(given) {
  if (!given?.length) return "–";
  const failed = given.filter((gate) => gate.passed === false);
  const messages = given.map((gate) => gate.message).filter(Boolean);
  const said = failed.length ? `refused: ${failed.map((gate) => words(gate.name)).join(", ")}` : `${given.length} passed`;
  return el("span", { class: failed.length ? "outcome failed" : "", title: messages.join("; ") }, said);
}

function history(rollout, name) {
  const reason = rollout.reason ? `, “${rollout.reason}”` : "";
  const [from, to] = [name(rollout.from_version), name(rollout.to_version)];
  return `${when(rollout.created_at)} ${words(rollout.kind)} ${from} to ${to}: ${rolloutWords(rollout)}${reason}`;
}

export function rolloutWords({ status, canary, error }) {
  const counted = canary ? `, ${plural(canary.requests ?? 0, "request")}, ${plural(canary.errors ?? 0, "error")}` : "";
  const slower = canary?.slowdown ? `, ${canary.slowdown.toFixed(1)} times the seconds` : "";
  const share = canary ? `, ${canary.percent} % for ${canary.seconds} s${counted}${slower}` : "";
  return `${status}${share}${error ? `, ${error}` : ""}`;
}

// Why a version is promoted only by somebody who may pass over gates.
export function refused(version) {
  const failed = (version.gates ?? []).filter((gate) => gate.passed === false).map((gate) => words(gate.name));
  return version.status === "rejected" && !failed.length ? ["rejected"] : failed;
}

// The youngest ancestor that may serve: where a rollback goes.
export function earlier(id, versions) {
  const of = (one) => versions?.find((version) => version.id === one);
  let found = of(of(id)?.parent);
  while (found && ["revoked", "deleted"].includes(found.status)) found = of(found.parent);
  return found?.id ?? null;
}
