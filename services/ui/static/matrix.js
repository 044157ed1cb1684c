// The forgetting matrix: a row for each night, a column for each version that came after it, and in the cell what of the night's day that
// version still knows. What was measured of several nights together is one cell over all of them.

import { el, way } from "./dom.js";
import { nightName, share, versionName } from "./format.js";

const DENSE = 14;

export function matrix(columns, { versions, numbers, deployment }) {
  const known = columns.filter((column) => column.own !== null || column.earlier !== null || Object.keys(column.kept).length);
  if (!known.length) return el("p", { class: "empty" }, "No night has been measured yet.");
  const nights = known.map((column) => column.night);
  const head = el(
    "tr",
    {},
    el("td"),
    known.map((column) => el("th", { scope: "col" }, versionName(column.version, versions, numbers))),
  );
  const rows = nights.map((night, i) =>
    el(
      "tr",
      {},
      el("th", { scope: "row" }, el("a", { href: way("deployments", deployment, "nights", night) }, nightName(night, numbers))),
      known.map((column) => cell(column, nights, i)),
    ),
  );
  const kind = known.length > DENSE ? "matrix dense" : "matrix";
  return el(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": "Forgetting matrix" },
    el(
      "table",
      { class: kind },
      el("caption", { class: "unseen" }, "Share of what a night taught that each later version still knows"),
      el("thead", {}, head),
      el("tbody", {}, rows),
    ),
  );
}

function cell(column, nights, row) {
  const night = nights[row];
  if (night === column.night) return heat(column.own, 1, "own day");
  if (column.kept[night] !== undefined) return heat(column.kept[night], 1, "");
  const mine = (i) => column.earlier_nights.includes(nights[i]) && column.kept[nights[i]] === undefined;
  if (!mine(row)) return el("td", { class: "none" });
  if (row > 0 && mine(row - 1) && nights[row - 1] !== column.night) return null;
  let height = 1;
  while (row + height < nights.length && mine(row + height)) height += 1;
  return heat(column.earlier, height, height > 1 ? "these nights together" : "");
}

function heat(value, rowspan, of) {
  const td = el("td", { class: value === null ? "heat unknown" : "heat", rowspan, title: of }, el("span", {}, share(value)));
  if (value !== null) {
    const percent = Math.round(100 * Math.min(1, Math.max(0, value)));
    td.style.setProperty("--share", `${percent}%`);
    td.classList.add(percent > 55 ? "strong" : "weak");
  }
  return td;
}
