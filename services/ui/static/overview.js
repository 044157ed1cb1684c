// Every deployment that the key may see, and how it is.

import { ask, askIfAllowed, passes, path } from "./api.js";
import { Section, el, say, way } from "./dom.js";
import { plural, short, when } from "./format.js";
import { rest, seen } from "./sse.js";

const LOOK_MILLISECONDS = 15_000;
const PAGE = 100;

export async function overviewPage(main, _, signal) {
  document.title = "Circadian";
  const list = el("section", { "aria-labelledby": "overview" });
  main.append(el("h1", { id: "overview" }, "Deployments"), list);
  const section = new Section(list, table);
  while (!signal.aborted) {
    try {
      section.show(await gathered(signal));
    } catch (error) {
      if (!section.shown || !passes(error)) throw error;
      say(`${error.message} Trying again.`);
    }
    await rest(LOOK_MILLISECONDS, signal);
    await seen(signal);
  }
}

async function gathered(signal) {
  const { data } = await ask("/v1/deployments", { query: { limit: PAGE }, signal });
  return Promise.all(
    data.map(async (deployment) => {
      const status = await ask(`${path("deployments", deployment.id)}/status`, { signal });
      const last = status.last_sleep && (await askIfAllowed(path("sleeps", status.last_sleep), { signal }));
      return { deployment, status, last };
    }),
  );
}

function table(all) {
  if (!all.length) return el("p", { class: "empty" }, "There is no deployment yet. POST /v1/deployments founds one.");
  const head = ["Name", "State", "Serves", "Waiting", "Last night", "Base model"];
  return el(
    "div",
    { class: "scroll card" },
    el(
      "table",
      { class: "list stack", "aria-labelledby": "overview" },
      el(
        "thead",
        {},
        el(
          "tr",
          {},
          head.map((word) => el("th", { scope: "col" }, word)),
        ),
      ),
      el("tbody", {}, all.map(row)),
    ),
  );
}

function row({ deployment, status, last }) {
  const cell = (name, ...children) => el("td", { "data-name": name }, children);
  return el(
    "tr",
    {},
    el(
      "th",
      { scope: "row" },
      el("a", { href: way("deployments", deployment.name), "data-focus": deployment.id }, deployment.name),
    ),
    cell("State", state(status.state)),
    cell("Serves", el("code", { title: status.active_version }, short(status.active_version))),
    cell("Waiting", plural(status.pending.experiences, "experience")),
    cell("Last night", last ? `${when(last.finished_at)}, ${(last.outcome ?? last.status).replace("_", " ")}` : "none"),
    cell(
      "Base model",
      el(
        "span",
        { class: "muted clip", title: deployment.base_model.model },
        deployment.base_model.model.split("/").slice(-2).join("/"),
      ),
    ),
  );
}

export function state(name) {
  return el("span", { class: `state ${name}` }, name);
}
