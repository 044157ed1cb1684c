// One night, while it lasts and after it: its hypnogram and losses, its stages, its gate, its dreams, and everything that it said.

import { ask, beside, path } from "./api.js";
import { Section, el, onWidth, say, way, whisper } from "./dom.js";
import { dreams } from "./dreams.js";
import { clock, nightName, now, plural, precise, short, took, versionName, when, words } from "./format.js";
import { legend, oneNight } from "./hypnogram.js";
import { stats } from "./head.js";
import { nightButtons } from "./interventions.js";
import { follow } from "./sse.js";
import { depthOf, jobs, stagesOf, trainRuns } from "./stages.js";
import { gateTable, links } from "./tables.js";
import { card, progressOf } from "./tonight.js";

const LOG = 100;
const GATHER_MILLISECONDS = 150;
const TICK_MILLISECONDS = 2000;
const CHANGES =
  /^(sleep\.(started|paus|resumed|retr|stage_started|stage_finished|cancelling|cancelled|failed|succeeded)|deployment\.|version\.)/;

const SPOKEN = /^sleep\.(paus|resumed|retried|cancel|failed|succeeded)/;

export async function nightPage(main, { deployment, night }, signal) {
  await new NightPage(main, deployment, night, signal).live();
}

class NightPage {
  constructor(main, deployment, id, signal) {
    Object.assign(this, { deployment, id, signal, events: [], all: false, drawing: false, goOn: () => {} });
    const section = (title, draw, kind = "card") => {
      const body = el("div", {});
      main.append(el("section", { class: kind, "aria-label": title ?? "Night" }, title ? el("h2", {}, title) : null, body));
      return new Section(body, draw);
    };
    this.head = section(null, (data) => this.drawHead(data), "head");
    this.picture = section("Hypnogram", (data) => this.drawPicture(data));
    const outer = main;
    main = el("div", { class: "columns" });
    outer.append(main);
    this.stages = section("Stages", (data) => this.drawStages(data));
    this.gate = section("Gate", (data) => gateTable(data));
    main = outer;
    this.dreams = dreams(id, signal);
    main.append(this.dreams.node);
    this.log = section("Events", (data) => this.drawLog(data));
    this.links = section("In Ray's dashboard", (data) => links(data.dashboard, data.jobs, data.runs));
    onWidth(main, signal, () => this.picture.again());
    const tick = setInterval(() => this.sleep && !this.sleep.finished_at && this.show(), TICK_MILLISECONDS);
    signal.addEventListener("abort", () => clearInterval(tick));
  }

  async live() {
    await this.look();
    await this.dreams.load();
    const told = (event) => {
      this.events.push(event);
      if (event.type === "sleep.stage_started") whisper(words(event.data.stage));
      if (SPOKEN.test(event.type)) whisper(event.message);
      if (event.type === "sleep.stage_finished" && String(event.data.stage).startsWith("dream_") && !this.sleep.finished_at)
        beside(this.dreams.load(), this.signal, say);
      if (CHANGES.test(event.type) && !this.sleep.finished_at) this.lookSoon();
      this.showSoon();
    };
    while (!this.signal.aborted) {
      await follow(this.id, { after: this.events.at(-1)?.seq ?? 0, signal: this.signal, told });
      if (this.signal.aborted) return;
      await this.look();
      if (this.sleep?.finished_at) await this.triedAgain();
    }
  }

  // Resolves when a night that has ended was tried again here, or the page was left.
  triedAgain() {
    return new Promise((resolve) => {
      this.goOn = resolve;
      this.signal.addEventListener("abort", resolve, { once: true });
    });
  }

  async decided(dialog, done) {
    if ((await dialog) === null) return;
    say(done);
    await this.look();
    if (!this.sleep.finished_at) this.goOn();
  }

  async look() {
    const [sleep, told] = await Promise.all([
      ask(path("sleeps", this.id), { signal: this.signal }),
      ask(`${path("deployments", this.deployment)}/nights`, { signal: this.signal, query: { sleep: this.id } }),
    ]);
    if (this.signal.aborted) return;
    Object.assign(this, { sleep, told, night: told.data[0] });
    this.name = nightName(this.id, told.numbers);
    document.title = `${this.name} of ${this.deployment} · Circadian`;
    const crumb = document.getElementById("trail-night");
    if (crumb) crumb.textContent = this.name;
    this.show();
  }

  lookSoon() {
    clearTimeout(this.looking);
    this.looking = setTimeout(() => this.signal.aborted || beside(this.look(), this.signal, say), GATHER_MILLISECONDS);
  }

  showSoon() {
    if (this.drawing) return;
    this.drawing = true;
    requestAnimationFrame(() => {
      this.drawing = false;
      if (!this.signal.aborted) this.show();
    });
  }

  show() {
    const { sleep, told, events } = this;
    const until = sleep.finished_at ?? Math.floor(now());
    const parent = told.versions?.find((version) => version.id === sleep.parent_version);
    this.head.show({ sleep, stage: this.running(), until, serves: parent ? parent.status === "active" : true });
    this.picture.show({ count: events.length, until, ended: sleep.finished_at });
    this.gate.show(this.night.gates);
    this.stages.show({ spans: stagesOf(events).map((span) => ({ ...span, to: span.to ?? until })), ended: sleep.finished_at });
    this.links.show({ dashboard: told.ray_dashboard, jobs: jobs(events), runs: trainRuns(events) });
    this.log.show({ count: events.length, all: this.all });
  }

  // The stage that runs, with how far it is.
  running() {
    const open = stagesOf(this.events).at(-1);
    if (!open || open.to !== null || this.sleep.finished_at) return null;
    const last = this.events.findLast((event) => event.type === "sleep.progress" && event.created_at >= open.from);
    return {
      stage: open.stage,
      step: last?.data.step ?? null,
      total: last?.data.total_steps ?? null,
      loss: last?.data.loss ?? null,
    };
  }

  nameOf(id) {
    return versionName(id, this.told.versions, this.told.numbers);
  }

  drawHead({ sleep, stage, until, serves }) {
    const ended = Boolean(sleep.finished_at);
    const decided = (dialog, done) => beside(this.decided(dialog, done), this.signal, say);
    const made = sleep.result_version;
    const outcome = sleep.outcome ?? sleep.status;
    const facts = [
      ["Began", when(sleep.created_at), short(sleep.id)],
      [ended ? "Took" : "Sleeping for", took(until - sleep.created_at), plural(sleep.attempt, "attempt")],
      ["From", this.nameOf(sleep.parent_version), short(sleep.parent_version)],
      ["Made", made ? this.nameOf(made) : "–", made ? short(made) : words(outcome)],
    ];
    const of = el("a", { href: way("deployments", this.deployment) }, this.deployment);
    return [
      el(
        "div",
        { class: "title" },
        el(
          "div",
          {},
          el("h1", {}, this.name[0].toUpperCase() + this.name.slice(1)),
          el("span", { class: `outcome big ${outcome}` }, words(outcome)),
          el("p", { class: "muted" }, "of ", of, `, seed ${sleep.seed}`),
        ),
        el("div", { class: "actions" }, nightButtons(sleep, this.name, decided, serves)),
      ),
      sleep.error ? el("p", { class: "wrong", role: "alert" }, `${words(sleep.error.code)}: ${sleep.error.message}`) : null,
      stats(facts),
      ended ? null : this.drawProgress(sleep, stage),
    ];
  }

  drawProgress(sleep, stage) {
    const loss = stage?.loss ? `, loss ${precise(stage.loss)}` : "";
    return card(
      "Tonight",
      progressOf(stage ? words(stage.stage) : (sleep.waiting ?? sleep.status), stage?.step, stage?.total, loss),
    );
  }

  drawPicture({ until }) {
    if (!this.events.length) return el("p", { class: "empty" }, "Nothing has happened yet.");
    const width = Math.max(280, this.picture.node.clientWidth);
    const name = (id) => this.nameOf(id);
    const night = { ...this.night, ...this.sleep, events: this.events };
    const drawn = oneNight(night, { depths: this.told.depths, width, until, name });
    return [
      drawn,
      legend([
        ["by-fast", "with fast memory"],
        ["by-after", "the new version"],
        ["task-fast_learning", "loss, fast learning"],
        ["task-seeding", "loss, knowledge seeding"],
        ["restart", "learner started again"],
      ]),
    ];
  }

  drawStages({ spans, ended }) {
    if (!spans.length) return el("p", { class: "empty" }, "The night has not begun.");
    const longest = Math.max(...spans.map((span) => span.to - span.from), 0.001);
    const { depths } = this.told;
    const rows = spans.map((span, i) => {
      const depth = depthOf(span.stage, depths);
      const kind = depth === null ? "other" : depths[depth].name.replace(/\W+/g, "-");
      const runs = !ended && i === spans.length - 1 && span.seconds === null;
      const length = el("span", { class: `length depth-${kind}`, "aria-hidden": "true" });
      length.style.inlineSize = `${Math.max(0.5, (100 * (span.to - span.from)) / longest).toFixed(2)}%`;
      return el(
        "tr",
        {},
        el("th", { scope: "row" }, words(span.stage)),
        el("td", { class: "number" }, runs ? "runs" : took(span.seconds ?? span.to - span.from)),
        el("td", { class: "lengths" }, length),
        el("td", { class: "muted" }, span.broken && !runs ? "broken off" : ""),
      );
    });
    const head = ["Stage", "Took"].map((word) => el("th", { scope: "col" }, word));
    return el(
      "div",
      { class: "scroll" },
      el(
        "table",
        { class: "list stages", "aria-label": "Stages" },
        el("thead", { class: "unseen" }, el("tr", {}, head, el("td"), el("td"))),
        el("tbody", {}, rows),
      ),
    );
  }

  // Newest first; of every run only the last word on its progress.
  drawLog({ all }) {
    const last = new Map(
      this.events.filter((event) => event.type === "sleep.progress").map((event) => [event.data.run, event.seq]),
    );
    const told = this.events.filter((event) => event.type !== "sleep.progress" || last.get(event.data.run) === event.seq).reverse();
    const shown = all ? told : told.slice(0, LOG);
    const more = () => {
      this.all = true;
      this.show();
    };
    const line = (event) =>
      el(
        "li",
        { class: event.level },
        el("time", { datetime: new Date(1000 * event.created_at).toISOString() }, clock(event.created_at)),
        el("code", {}, event.type),
        el("span", {}, event.message),
      );
    return [
      el("ol", { class: "log" }, shown.map(line)),
      shown.length < told.length
        ? el("button", { type: "button", class: "quiet", on: { click: more } }, `All ${told.length} events`)
        : null,
    ];
  }
}
