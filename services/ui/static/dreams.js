// The dreams of a night to read, page by page: of what, what became of it, and how well an instance did that learned it.

import { ask, beside, path } from "./api.js";
import { el, say } from "./dom.js";
import { precise, short, words } from "./format.js";

const PAGE = 10;

export function dreams(sleep, signal) {
  const list = el("ol", { class: "dreams" });
  const more = el("button", { type: "button", class: "quiet" }, "More dreams");
  const only = el("input", { type: "checkbox", id: "only-rewarded" });
  const none = el("p", { class: "empty", hidden: true }, "None of them helped.");
  let after;
  async function load() {
    more.disabled = true;
    const query = { limit: PAGE, after, rewarded: only.checked ? true : undefined };
    const page = await ask(`${path("sleeps", sleep)}/dreams`, { query, signal });
    list.append(...page.data.map(dream));
    after = page.last_id ?? after;
    more.hidden = !page.has_more;
    more.disabled = false;
    none.hidden = list.childElementCount > 0;
    if (list.childElementCount) node.hidden = false;
  }
  const again = () => {
    after = undefined;
    list.replaceChildren();
    return load();
  };
  more.addEventListener("click", () => beside(load(), signal, say));
  only.addEventListener("change", () => beside(again(), signal, say));
  const filter = el("label", { class: "filter", for: "only-rewarded" }, only, "only those that helped");
  // Of a night that did not dream there is nothing to say.
  const node = el(
    "section",
    { class: "card", "aria-label": "Dreams", hidden: true },
    el("h2", {}, "Dreams"),
    filter,
    none,
    list,
    more,
  );
  return { node, load: again };
}

function dream(one) {
  const compared = one.score !== null && one.undreamt !== null;
  const facts = [
    one.round === "final" ? "last round" : `round ${one.round}`,
    words(one.kind),
    `from ${short(one.source)}`,
    one.trust,
    one.fate ? words(one.fate) : null,
    compared ? `${precise(one.score)} against ${precise(one.undreamt)} undreamt` : null,
  ];
  const kind = one.rewarded ? "helped" : one.rewarded === false ? "did not help" : "not tried";
  return el(
    "li",
    { class: one.rewarded ? "rewarded" : "" },
    el("p", { class: "dreamt" }, one.text),
    el("p", { class: "muted" }, el("strong", {}, kind), ` · ${facts.filter(Boolean).join(" · ")}`),
  );
}
