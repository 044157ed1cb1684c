// The losses of a night beneath its hypnogram, on a logarithmic scale: a curve for each run of a learner.

import { svg } from "./dom.js";
import { lossesOf } from "./stages.js";

const HEIGHT = 96;
const HEADING = 18;
const STEPS = [1, 2, 5];

export function losses(events, { x, left, right, top }) {
  const curves = lossesOf(events);
  if (!curves.length) return { parts: [], height: 0 };
  const values = curves.flatMap((curve) => curve.points.map((point) => point.loss));
  const [low, high] = [Math.log(Math.min(...values)), Math.log(Math.max(...values))];
  const spread = Math.max(high - low, 0.1);
  const y = (loss) => top + HEADING + (HEIGHT - HEADING) * (1 - (Math.log(loss) - low) / spread);
  return { parts: [...scale(low, high, y, left, right, top), ...curves.map((curve) => line(curve, x, y))], height: HEIGHT + 6 };
}

function scale(low, high, y, left, right, top) {
  const parts = [svg("text", { class: "label end", x: left - 10, y: top + 12, "aria-hidden": "true" }, "loss")];
  let before = Infinity;
  for (const tick of ticks(low, high).reverse()) {
    const height = y(tick);
    parts.push(svg("line", { class: "grid", x1: left, x2: right, y1: height, y2: height }));
    if (Math.abs(before - height) > 14 && height > top + 20) {
      parts.push(svg("text", { class: "small end", x: left - 10, y: height + 4, "aria-hidden": "true" }, String(tick)));
      before = height;
    }
  }
  return parts;
}

function ticks(low, high) {
  const found = [];
  for (let power = Math.floor(low / Math.LN10); power <= Math.ceil(high / Math.LN10); power += 1) {
    for (const step of STEPS) {
      const tick = Number((step * 10 ** power).toPrecision(1));
      if (Math.log(tick) >= low - 1e-9 && Math.log(tick) <= high + 1e-9) found.push(tick);
    }
  }
  return found;
}

function line({ task, points }, x, y) {
  if (points.length === 1) return svg("circle", { class: `dot task-${task}`, cx: x(points[0].at), cy: y(points[0].loss), r: 2 });
  return svg("polyline", {
    class: `curve task-${task}`,
    points: points.map(({ at, loss }) => `${x(at).toFixed(1)},${y(loss).toFixed(1)}`).join(" "),
  });
}
