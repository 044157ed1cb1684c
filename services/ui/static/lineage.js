// Where knowledge lives: every expert of every level, its state, and the nights whose days it holds.

import { el, way } from "./dom.js";
import { count, nightName, plural, precise, words } from "./format.js";

const MEANINGS = {
  reserved: "free, never written",
  open: "being written",
  sealed: "frozen for good",
  pruned: "emptied, free again",
};

// open: places [level, expert] that are written right now, whatever the version says.
export function lineage({ levels }, { numbers, deployment, open }) {
  const detail = el("div", { class: "detail", "aria-live": "polite" });
  const tell = (level, expert) => detail.replaceChildren(told(level, expert, numbers, deployment));
  const rows = levels.map((level) => {
    const experts = level.experts.map((expert) => live(expert, level, open));
    return el(
      "div",
      { class: "level" },
      el(
        "h3",
        {},
        `Level ${level.level}`,
        el("span", { class: "muted" }, ` every ${count(level.period)} tokens, rank ${level.rank}`),
      ),
      el(
        "ul",
        { class: "experts" },
        experts.map((expert) => el("li", {}, square(level, expert, numbers, tell))),
      ),
    );
  });
  const states = el(
    "ul",
    { class: "legend" },
    Object.entries(MEANINGS).map(([state, meaning]) =>
      el("li", {}, el("span", { class: `swatch expert ${state}`, "aria-hidden": "true" }), `${state}: ${meaning}`),
    ),
  );
  return [...rows, detail, states];
}

function live(expert, level, open) {
  return open.some(([l, e]) => l === level.level && e === expert.expert) ? { ...expert, state: "open" } : expert;
}

function square(level, expert, numbers, tell) {
  const nights = expert.nights ?? [];
  const name = `Level ${level.level}, expert ${expert.expert}: ${expert.state ?? "unknown"}${nights.length ? `, ${nights.map((night) => nightName(night, numbers)).join(", ")}` : ""}`;
  const label = nights.map((night) => numbers[night.split("+")[0]] ?? "?");
  const shown = label.length > 2 ? `${label[0]}–${label.at(-1)}` : [...new Set(label)].join(", ");
  const attributes = {
    type: "button",
    class: `expert ${expert.state ?? "unknown"}`,
    title: name,
    "aria-label": name,
    "data-focus": `expert-${level.level}-${expert.expert}`,
  };
  return el("button", { ...attributes, on: { click: () => tell(level, expert) } }, shown);
}

function told(level, expert, numbers, deployment) {
  const heading = el("h4", {}, `Level ${level.level}, expert ${expert.expert}: ${expert.state ?? "state unknown"}`);
  if (!expert.nights)
    return el("div", {}, heading, el("p", {}, expert.state === "open" ? "It is being written tonight." : "It holds nothing."));
  const nights = expert.nights.map((night, i) => [
    i ? ", " : null,
    el("a", { href: way("deployments", deployment, "nights", night.split("+")[0]) }, nightName(night, numbers)),
  ]);
  const measured = Object.entries(expert.metrics).map(([name, value]) => `${words(name)} ${precise(value)}`);
  const facts = [
    ["holds", el("span", {}, nights)],
    [
      "learned from",
      `${expert.trust} experience${expert.teachers.length ? `, ${expert.teachers.map((teacher) => teacher.model).join(", ")}` : ""}`,
    ],
    expert.dreamt_of ? ["dreamt of", plural(expert.dreamt_of, "experience")] : null,
    measured.length ? ["at the gate", measured.join(", ")] : null,
  ];
  return el(
    "div",
    {},
    heading,
    el(
      "dl",
      { class: "facts" },
      facts.filter(Boolean).map(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]),
    ),
  );
}
