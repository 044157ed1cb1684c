// Making elements. Text only ever becomes text nodes and attributes, never markup; an address is one of this page, or http(s).

const SVG = "http://www.w3.org/2000/svg";
const SAID_MILLISECONDS = 6000;
let hiding;
const REFUSED = /^(on|style$|srcdoc$)/i;

export function el(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

export function svg(name, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "on") {
      for (const [kind, listener] of Object.entries(value)) node.addEventListener(kind, listener);
    } else if (value !== null && value !== undefined && value !== false) {
      if (REFUSED.test(name)) throw new Error(`${name} cannot be set here; use a class, or on: {...}`);
      if (name === "href" && !isSafe(value)) continue;
      node.setAttribute(name, value === true ? "" : String(value));
    }
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

export function isSafe(address) {
  return /^(#|https?:\/\/)/i.test(String(address));
}

// A link that leaves the page; only its text where the address is none that a browser should follow.
export function outward(address, text) {
  return isSafe(address) ? el("a", { href: address, target: "_blank", rel: "noopener noreferrer" }, text) : el("span", {}, text);
}

// The way to a page of this app, each part escaped.
export function way(...parts) {
  return `#/${parts.map(encodeURIComponent).join("/")}`;
}

// A part of the page that is drawn again only when what it shows has changed, and then keeps the focus where it was.
export class Section {
  constructor(node, draw) {
    this.node = node;
    this.draw = draw;
    this.shown = undefined;
  }

  show(data) {
    const key = JSON.stringify(data);
    if (key === this.shown) return;
    this.shown = key;
    const focused = this.node.contains(document.activeElement) ? document.activeElement.dataset.focus : undefined;
    this.node.closest("[aria-busy]")?.removeAttribute("aria-busy");
    this.node.replaceChildren(...[this.draw(data)].flat(Infinity).filter(Boolean));
    if (focused) [...this.node.querySelectorAll("[data-focus]")].find((one) => one.dataset.focus === focused)?.focus();
  }

  again() {
    const data = this.shown;
    this.shown = undefined;
    if (data !== undefined) this.show(JSON.parse(data));
  }
}

// Calls `changed` when a node's width has changed, until `signal` says so.
export function onWidth(node, signal, changed) {
  let before = node.clientWidth;
  const observer = new ResizeObserver(() => {
    if (node.clientWidth === before) return;
    before = node.clientWidth;
    changed();
  });
  observer.observe(node);
  signal.addEventListener("abort", () => observer.disconnect());
}

// For everybody, for a while.
export function say(text) {
  const toast = document.getElementById("toast");
  toast.textContent = text;
  clearTimeout(hiding);
  hiding = setTimeout(() => (toast.textContent = ""), SAID_MILLISECONDS);
}

// For those who listen to the page: what others see for themselves.
export function whisper(text) {
  document.getElementById("whispered").textContent = text;
}
