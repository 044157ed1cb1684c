// The hypnogram, as sleep science draws it: how deep at which time. `life` is nights side by side, to one scale, the days between them
// shortened; `oneNight` is a night with its clock and its losses.

import { el, svg } from "./dom.js";
import { clock, share, took, when, words as spaced } from "./format.js";
import { losses } from "./losses.js";
import { AWAKE, endOf, restarts, servedBy, stepsOf } from "./stages.js";

const ROW = 26;
const BAR = 13;
const BAND = 20;
const NARROW = 560;
const WIDE = { gutter: 132, gap: 52, panel: 76 };
const SMALL = { gutter: 74, gap: 32, panel: 62 };
const UNDER = 42;
const TICKS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 28_800];

// Rows that are drawn, from the top: dreams only where there are any.
function rowsOf(nights, depths) {
  const met = new Set(nights.flatMap((night) => night.steps.map((step) => step.depth)));
  return depths.map((depth, i) => ({ i, name: depth.name })).filter(({ i, name }) => name !== "dreaming" || met.has(i));
}

function sizesFor(width) {
  return width < NARROW ? SMALL : WIDE;
}

function layout(width, rows, top) {
  const sizes = sizesFor(width);
  const place = new Map(rows.map((row, i) => [row.i, top + BAND + 12 + ROW * i]));
  return { ...sizes, width, narrow: sizes === SMALL, y: (depth) => place.get(depth), bottom: top + BAND + 12 + ROW * rows.length };
}

function labels(rows, at, word) {
  const texts = rows.flatMap((row) => {
    const lines = at.narrow ? row.name.split(" ").reduce(joinedShort, []) : [row.name];
    const middle = at.y(row.i) + BAR / 2;
    return [
      svg("line", { class: "grid", x1: at.gutter, x2: at.width, y1: middle, y2: middle }),
      ...lines.map((line, i) => text(line, at.gutter - 10, middle + 4 + 12 * (i - (lines.length - 1) / 2), "label end")),
    ];
  });
  return [text(word, at.gutter - 10, 15, "label end"), ...texts];
}

// Two words on a line where they are short.
function joinedShort(lines, word) {
  const last = lines.at(-1);
  return last !== undefined && `${last} ${word}`.length <= 11 ? [...lines.slice(0, -1), `${last} ${word}`] : [...lines, word];
}

function text(words, x, y, kind) {
  return svg("text", { class: kind, x, y, "aria-hidden": "true" }, words);
}

function bars(steps, x, at, rows) {
  const drawn = [];
  steps.forEach((step, i) => {
    const [left, right] = [x(step.from), x(step.to)];
    const next = steps[i + 1];
    if (next) {
      const ys = [at.y(step.depth), at.y(next.depth)].map((y) => y + BAR / 2);
      drawn.push(svg("line", { class: "joint", x1: right, x2: right, y1: ys[0], y2: ys[1] }));
    }
    const kind = `bar depth-${rows.find((row) => row.i === step.depth).name.replace(/\W+/g, "-")}`;
    drawn.push(svg("rect", { class: kind, x: left, y: at.y(step.depth), width: Math.max(2, right - left), height: BAR, rx: 3 }));
  });
  return drawn.sort((a, b) => (a.nodeName === "rect") - (b.nodeName === "rect"));
}

function band(spans, x) {
  return spans.flatMap(({ by, from, to, name }) => {
    const [left, right] = [x(from), x(to)];
    const wide = name && right - left > 7 * name.length + 8;
    return [
      svg(
        "rect",
        { class: `band by-${by}`, x: left, y: 0, width: Math.max(1, right - left), height: BAND },
        svg("title", {}, name ?? ""),
      ),
      wide ? text(name, (left + right) / 2, 14, "band-name middle") : null,
    ];
  });
}

function marks(events, x, at) {
  return restarts(events).map((event) => {
    const [left, top] = [x(event.created_at), at.y(AWAKE) - 9];
    const shape = svg("path", { class: "restart", d: `M${left - 4} ${top}h8l-4 6z` });
    shape.append(svg("title", {}, `a learner was started again, at step ${event.data.step ?? 0}`));
    return shape;
  });
}

// nights: newest first, as the service tells them. name(version): what it is called. href(night): its page.
export function life(nights, { depths, width, until, name, href, title, servingAt }) {
  const all = [...nights].reverse().map((night) => ({ ...night, steps: stepsOf(night.events, depths, until) }));
  const { gutter, gap, panel: least } = sizesFor(width);
  const shown = all.slice(-Math.max(1, Math.floor((width - gutter - gap) / (least + gap))));
  const rows = rowsOf(shown, depths);
  const at = layout(width, rows, 0);
  const panels = widths(shown, width - gutter - gap * (shown.length + 1), least);
  const parts = [...labels(rows, at, "answers")];
  let x = gutter;
  shown.forEach((night, i) => {
    const before = shown[i - 1];
    parts.push(...awake(before && endOf(before.events), night.created_at, x, at, name(night.parent_version)));
    parts.push(panel(night, x + gap, panels[i], { at, rows, until, name, href, title }));
    x += gap + panels[i];
  });
  const last = shown.at(-1);
  const end = last && endOf(last.events);
  if (!last || end) parts.push(...awake(end, until, x, at, name(servingAt), "now"));
  return {
    drawn: svg(
      "svg",
      { class: "hypnogram", width, height: at.bottom + UNDER, role: "group", "aria-label": "Hypnogram of the last nights" },
      parts,
    ),
    shown: shown.length,
  };
}

// To one scale, but that each has room for its words.
function widths(nights, room, most) {
  const seconds = nights.map((night) => Math.max(1, night.steps.at(-1).to - night.steps[0].from));
  const least = Math.min(most, room / nights.length);
  const spare = room - least * nights.length;
  const beyond = seconds.map((one) => one / seconds.reduce((a, b) => a + b, 0));
  return beyond.map((part) => least + spare * part);
}

function awake(from, to, x, at, version, word) {
  const long = from ? brief(to - from) : "";
  const middle = x + at.gap / 2;
  return [
    svg("rect", { class: "band by-before", x, y: 0, width: at.gap, height: BAND }),
    text(version, middle, 14, "band-name middle"),
    svg("rect", { class: "bar depth-awake", x: x - 3, y: at.y(AWAKE), width: at.gap + 6, height: BAR, rx: 3 }),
    text(long, middle, at.y(AWAKE) + BAR + 14, "small middle"),
    word ? text(word, middle, at.bottom + 18, "small middle") : null,
  ];
}

function brief(seconds) {
  return took(seconds).split(" ").slice(0, 2).join(" ");
}

function panel(night, left, width, { at, rows, until, name, href, title }) {
  const [start, end] = [night.steps[0].from, night.steps.at(-1).to];
  const x = (moment) => left + (width * (moment - start)) / Math.max(1, end - start);
  const served = servedBy(night.events, until).map((span, i) => ({ ...span, name: i ? bandName(span.by, night, name) : "" }));
  const ended = endOf(night.events) !== null;
  const middle = left + width / 2;
  const link = svg(
    "a",
    { href: href(night), "aria-label": summary(night, title), "data-focus": `life-${night.id}`, class: "panel" },
    svg("title", {}, summary(night, title)),
    svg("rect", { class: "hit", x: left, y: BAND, width, height: at.bottom + UNDER - BAND, rx: 6 }),
    bars(night.steps, x, at, rows),
    marks(night.events, x, at),
    text(title(night), middle, at.bottom + 18, "night middle"),
    text(verdict(night), middle, at.bottom + 34, `small middle verdict ${night.outcome ?? night.status}`),
    ended ? null : svg("line", { class: "now", x1: left + width, x2: left + width, y1: BAND, y2: at.bottom }),
  );
  return [...band(served, x), link];
}

function bandName(by, night, name) {
  if (by === "fast") return "fast";
  return name(by === "after" ? night.result_version : night.parent_version);
}

// One word on how a night ended.
export function verdict(night) {
  if (night.status !== "succeeded") return night.status;
  if (night.outcome === "promoted" && night.recall !== null) return `recall ${share(night.recall)}`;
  return spaced(night.outcome);
}

function summary(night, title) {
  const end = endOf(night.events);
  return `${title(night)}, ${when(night.created_at)}${end ? `, ${took(end - night.created_at)}` : ""}, ${verdict(night)}`;
}

export function oneNight(night, { depths, width, until, name }) {
  const steps = stepsOf(night.events, depths, until);
  const rows = rowsOf([{ steps }], depths);
  const at = layout(width, rows, 0);
  const [start, end] = [steps[0].from, steps.at(-1).to];
  const right = width - 8;
  const x = (moment) => at.gutter + ((right - at.gutter) * (moment - start)) / Math.max(1, end - start);
  const spans = servedBy(night.events, until).map((span) => ({
    ...span,
    name: span.by === "fast" ? "with fast memory" : bandName(span.by, night, name),
  }));
  const below = losses(night.events, { x, left: at.gutter, right, top: at.bottom + 10 });
  const bottom = at.bottom + below.height + 8;
  const parts = [
    ...axis(start, end, x, at, bottom),
    ...labels(rows, at, "answers"),
    ...band(spans, x),
    ...bars(steps, x, at, rows),
    ...marks(night.events, x, at),
    ...below.parts,
  ];
  const told = `Hypnogram of the night: ${steps.map((step) => `${depths[step.depth].name} ${took(step.to - step.from)}`).join(", ")}`;
  return svg("svg", { class: "hypnogram", width, height: bottom + 24, role: "img", "aria-label": told }, parts);
}

function axis(start, end, x, at, bottom) {
  const room = Math.max(1, (x(end) - x(start)) / 84);
  const step = TICKS.find((tick) => (end - start) / tick <= room) ?? 86_400;
  const ticks = [];
  for (let moment = 0; start + moment <= end; moment += step) {
    const left = x(start + moment);
    ticks.push(svg("line", { class: "tick", x1: left, x2: left, y1: BAND, y2: bottom }));
    ticks.push(
      text(moment ? ticked(moment, step) : clock(start).slice(0, 5), left, bottom + 16, moment ? "small middle" : "small"),
    );
  }
  return ticks;
}

function ticked(moment, step) {
  return step < 60 ? `${moment} s` : moment < 3600 ? `${moment / 60} min` : took(moment);
}

export function legend(items) {
  const entries = items.map(([kind, words]) => el("li", {}, el("span", { class: `swatch ${kind}`, "aria-hidden": "true" }), words));
  return el("ul", { class: "legend" }, entries);
}
