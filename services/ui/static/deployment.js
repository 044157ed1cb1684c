// One deployment: how it is, its life as a hypnogram, what it has kept, and what can be decided about it.

import { ask, askIfAllowed, beside, passes, path } from "./api.js";
import { abortRollout, promote, reject, revoke, rollBack, startSleep } from "./dialogs.js";
import { Section, el, onWidth, say, way, whisper } from "./dom.js";
import { nightName, now, versionName, when, words } from "./format.js";
import { button, head, nextSleep } from "./head.js";
import { legend, life } from "./hypnogram.js";
import { lineage } from "./lineage.js";
import { matrix } from "./matrix.js";
import { follow, rest, seen } from "./sse.js";
import { nightsTable, schedulesTable } from "./tables.js";
import { openNow, tonight, tonightOf } from "./tonight.js";
import { earlier, refused, versionsTable } from "./versions.js";

const LOOK_MILLISECONDS = 5000;
const QUICK_MILLISECONDS = 1000;
const GATHER_MILLISECONDS = 150;
const ROLLOUTS = 5;

export async function deploymentPage(main, { deployment }, signal) {
  document.title = `${deployment} · Circadian`;
  await new DeploymentPage(main, deployment, signal).live();
}

class DeploymentPage {
  constructor(main, name, signal) {
    Object.assign(this, { name, signal, older: [], offset: 0, chosen: undefined, progress: null, watched: null, data: null });
    this.wake = () => {};
    const section = (title, draw, kind = "card") => {
      const body = el("div", {});
      const heading = title ? el("h2", {}, title) : null;
      main.append(el("section", { class: kind, "aria-label": title ?? name }, heading, body));
      return new Section(body, draw);
    };
    this.head = section(null, (data) => head(data, this.actions()), "head");
    this.night = section(null, (data) => tonight(data, this.actions()), "tonight");
    this.life = section("Life", (data) => this.drawLife(data));
    const pair = el("div", { class: "columns" });
    const outer = main;
    outer.append(pair);
    main = pair;
    this.matrix = section("Forgetting matrix", (data) => this.drawMatrix(data));
    this.experts = section("Experts", (data) => this.drawExperts(data));
    main = outer;
    this.nights = section("Nights", (data) =>
      nightsTable({ ...data, deployment: name }, { more: () => beside(this.earlier(), signal, say) }),
    );
    this.versions = section("Versions", (data) => this.drawVersions(data));
    this.schedules = section("Schedules", (data) => schedulesTable(data.schedules));
    onWidth(outer, signal, () => this.life.again());
  }

  // Looks again every few seconds, and whenever the night says something.
  async live() {
    while (!this.signal.aborted) {
      try {
        this.data = await this.gathered();
      } catch (error) {
        if (!this.data || !passes(error)) throw error;
        say(`${error.message} Trying again.`);
        await rest(LOOK_MILLISECONDS, this.signal);
        continue;
      }
      if (this.signal.aborted) return;
      this.show();
      beside(this.watch(this.data.status.current_sleep), this.signal, say);
      const rolling = this.data.rollouts?.some((rollout) => rollout.status === "running");
      const woken = new Promise((resolve) => (this.wake = resolve));
      await Promise.race([rest(rolling ? QUICK_MILLISECONDS : LOOK_MILLISECONDS, this.signal), woken]);
      await rest(GATHER_MILLISECONDS, this.signal);
      await seen(this.signal);
    }
  }

  async gathered() {
    const { signal } = this;
    const query = { deployment: this.name };
    const [deployment, status, told, schedules, rollouts] = await Promise.all([
      ask(path("deployments", this.name), { signal }),
      ask(`${path("deployments", this.name)}/status`, { signal }),
      ask(`${path("deployments", this.name)}/nights`, { signal, query: { version: this.chosen } }),
      askIfAllowed("/v1/schedules", { signal, query }),
      askIfAllowed("/v1/rollouts", { signal, query: { ...query, limit: ROLLOUTS } }),
    ]);
    const nights = [...told.data, ...this.older.filter((old) => told.data.every((night) => night.id !== old.id))];
    this.numbers = { ...this.numbers, ...told.numbers };
    const has_more = this.older.length ? this.more : told.has_more;
    return {
      ...told,
      deployment,
      status,
      nights,
      has_more,
      numbers: this.numbers,
      schedules: schedules?.data ?? null,
      rollouts: rollouts?.data ?? null,
    };
  }

  async earlier() {
    const after = this.data.nights.at(-1).id;
    const told = await ask(`${path("deployments", this.name)}/nights`, { signal: this.signal, query: { after } });
    this.older = [...this.older, ...told.data];
    this.more = told.has_more;
    this.numbers = { ...this.numbers, ...told.numbers };
    this.wake();
  }

  async watch(sleep) {
    if (!sleep || this.watched === sleep) return;
    this.watched = sleep;
    this.progress = null;
    const after = this.data.nights.find((night) => night.id === sleep)?.last_seq ?? 0;
    const told = (event) => {
      if (event.type === "sleep.stage_started") whisper(`${this.name}: ${words(event.data.stage)}`);
      if (event.type === "sleep.progress") this.progressed(event);
      else this.wake();
    };
    await follow(sleep, { after, signal: this.signal, told });
    this.watched = null; // it may be tried again
    this.wake();
  }

  progressed(event) {
    this.progress = event;
    this.night.show(tonightOf(this.data, event));
  }

  show() {
    const { data } = this;
    const { deployment, status, nights, versions, numbers, rollouts, schedules } = data;
    const active = status.active_version;
    const minute = Math.ceil(now() / 60);
    const back = earlier(active, versions) !== null;
    const made = nights.find((night) => night.result_version === active) ?? null;
    this.head.show({ deployment, status, made, next: nextSleep(schedules), versions, numbers, back, minute });
    this.night.show(tonightOf(data, this.progress));
    const moment = status.current_sleep ? Math.floor(now()) : 60 * minute;
    this.life.show({ nights, depths: data.depths, numbers, versions, active, until: moment, rollouts });
    this.matrix.show({ matrix: data.matrix, versions, numbers });
    this.experts.show({ experts: data.experts, versions, numbers, active, open: openNow(data) });
    this.nights.show({ nights, versions, numbers, has_more: data.has_more });
    this.versions.show({ versions, numbers, active, rollouts, chosen: data.experts?.version });
    this.schedules.show({ schedules, minute });
  }

  nameOf(id) {
    return versionName(id, this.data.versions, this.numbers);
  }

  // What an operator may decide here, each in a dialog, from what is known when it opens.
  actions() {
    const name = (id) => this.nameOf(id);
    const { deployment, status, versions } = this.data;
    const active = status.active_version;
    const back = { name, active, to: earlier(active, versions) };
    return {
      deployment: this.name,
      startSleep: () => this.decided(startSleep(deployment, status), "The sleep has begun."),
      decided: (dialog, done) => this.decided(dialog, done),
      rollBack: () => this.decided(rollBack(deployment, back), "It is rolled back."),
      abort: (rollout, version) => this.decided(abortRollout(rollout, version), "The canary ends."),
      promote: (version) => this.decided(promote(version, { name, active, refused: refused(version) }), "The promotion has begun."),
      reject: (version) => this.decided(reject(version, { name }), `${name(version.id)} is rejected.`),
      revoke: (version) => this.decided(revoke(version, { name, active }), `${name(version.id)} is revoked.`),
    };
  }

  drawLife({ nights, depths, until: moment, active, rollouts, versions }) {
    const width = Math.max(280, this.life.node.clientWidth);
    const drawn = life(nights.slice(this.offset), {
      depths,
      width,
      until: moment,
      name: (id) => this.nameOf(id),
      href: (night) => way("deployments", this.name, "nights", night.id),
      title: (night) => nightName(night.id, this.numbers),
      servingAt: this.offset ? nights[this.offset - 1].parent_version : active,
    });
    const turn = (by) => () => {
      this.offset = Math.max(0, Math.min(nights.length - 1, this.offset + by));
      this.life.again();
    };
    const before = this.offset + drawn.shown < nights.length;
    const pages = [
      before ? button("Earlier", { class: "quiet", "data-focus": "turn-back" }, turn(drawn.shown)) : null,
      this.offset ? button("Later", { class: "quiet", "data-focus": "turn-on" }, turn(-drawn.shown)) : null,
    ];
    const colours = legend([
      ["by-before", "a version answers"],
      ["by-fast", "with fast memory"],
      ["restart", "learner started again"],
    ]);
    const last = versions && rollouts?.find((rollout) => rollout.status === "succeeded");
    return [
      drawn.drawn,
      el("div", { class: "under" }, colours, el("div", {}, pages)),
      last
        ? el("p", { class: "muted" }, `Last ${words(last.kind)}: to ${this.nameOf(last.to_version)}, ${when(last.finished_at)}.`)
        : null,
    ];
  }

  drawMatrix({ matrix: columns, versions, numbers }) {
    if (columns === null) return el("p", { class: "empty" }, "This key may not read versions.");
    return [
      matrix(columns, { versions, numbers, deployment: this.name }),
      el(
        "p",
        { class: "muted" },
        "Of each night's day, the share that a version completes as it was taught, and of earlier nights as the version before it did. What was measured of several nights together is one cell.",
      ),
    ];
  }

  drawExperts({ experts, versions, numbers, active, open }) {
    if (experts === null) return el("p", { class: "empty" }, "This key may not read versions.");
    const which = versionName(experts.version, versions, numbers);
    const serves = experts.version === active;
    const heading = el("p", { class: "muted" }, serves ? `Of ${which}, which serves.` : `Of ${which}, which does not serve.`);
    return [heading, ...lineage(experts, { numbers, deployment: this.name, open: serves ? open : [] })];
  }

  drawVersions(data) {
    if (data.versions === null) return el("p", { class: "empty" }, "This key may not read versions.");
    const choose = (version) => {
      this.chosen = version === data.active ? undefined : version;
      this.wake();
      this.experts.node.parentElement.scrollIntoView({ block: "nearest" });
    };
    const does = this.actions();
    const decide = { Promote: does.promote, Reject: does.reject, Revoke: does.revoke, "Roll back": does.rollBack };
    return versionsTable(data, { decide, choose });
  }

  async decided(dialog, done) {
    const result = await dialog;
    if (result === null) return;
    say(done);
    this.wake();
  }
}
