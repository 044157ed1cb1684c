// The page: which part of it the address names, and the key that opens it.

import { Problem, ask, key } from "./api.js";
import { deploymentPage } from "./deployment.js";
import { el, way } from "./dom.js";
import { field } from "./dialogs.js";
import { nightPage } from "./night.js";
import { overviewPage } from "./overview.js";

const content = document.getElementById("content");
const trail = document.getElementById("trail");
const forget = document.getElementById("forget");
let shown = new AbortController();

function routeOf(hash) {
  const parts = hash.replace(/^#\/?/, "").split("/").filter(Boolean).map(decoded);
  if (parts[0] === "deployments" && parts.length === 2) return [deploymentPage, { deployment: parts[1] }];
  if (parts[0] === "deployments" && parts[2] === "nights" && parts.length === 4)
    return [nightPage, { deployment: parts[1], night: parts[3] }];
  return [overviewPage, {}];
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

async function open(moved) {
  shown.abort();
  shown = new AbortController();
  const { signal } = shown;
  forget.hidden = key.get() === null;
  content.replaceChildren();
  if (key.get() === null) {
    content.removeAttribute("aria-busy");
    askForKey("");
    return;
  }
  const [page, given] = routeOf(location.hash);
  showTrail(given);
  if (moved) content.focus();
  content.setAttribute("aria-busy", "true");
  try {
    await page(content, given, signal);
  } catch (error) {
    if (!signal.aborted) failed(error);
  }
}

function failed(error) {
  content.removeAttribute("aria-busy");
  if (error instanceof Problem && error.status === 401) {
    key.forget();
    forget.hidden = true;
    content.replaceChildren();
    askForKey("The service does not know this key.");
    return;
  }
  content.replaceChildren(
    el(
      "div",
      { class: "note", role: "alert" },
      el("h1", {}, "This cannot be shown"),
      el("p", {}, error.message),
      el("button", { type: "button", on: { click: () => open(false) } }, "Try again"),
    ),
  );
  if (!(error instanceof Problem)) throw error;
}

function showTrail({ deployment, night }) {
  const parts = [el("a", { href: way() }, "Deployments")];
  if (deployment) parts.push(el("a", { href: way("deployments", deployment) }, deployment));
  if (night) parts.push(el("span", { id: "trail-night" }, night));
  parts.at(-1).setAttribute("aria-current", "page");
  trail.replaceChildren(
    el(
      "ol",
      {},
      parts.map((part) => el("li", {}, part)),
    ),
  );
}

function askForKey(why) {
  trail.replaceChildren();
  const wrong = el("p", { class: "wrong", role: "alert" }, why);
  const submit = async (event) => {
    event.preventDefault();
    key.set(form.elements.key.value.trim());
    try {
      await ask("/v1/deployments", { query: { limit: 1 } });
      await open(true);
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      key.forget();
      wrong.textContent = problem.message;
    }
  };
  const form = el(
    "form",
    { class: "gate", on: { submit } },
    el("h1", {}, "Look in on your models"),
    el(
      "p",
      { class: "muted" },
      "This page asks the service with an API key. It stays in this tab, and is gone when the tab is closed.",
    ),
    field("API key", { name: "key", type: "password", autocomplete: "off", spellcheck: "false", required: true }),
    wrong,
    el("button", { type: "submit", class: "primary" }, "Open"),
  );
  content.replaceChildren(form);
  form.elements.key.focus();
}

forget.addEventListener("click", () => {
  key.forget();
  open(true);
});
window.addEventListener("hashchange", () => open(true));
open(false);
