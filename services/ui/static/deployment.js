// One deployment: how it is, its life as a hypnogram, what it has kept, and what can be decided about it.

import { ask, askIfAllowed, beside, passes, path } from "./api.js";
import { abortRollout, cancelSleep, promote, reject, revoke, rollBack, startSleep } from "./dialogs.js";
import { Section, el, onWidth, say, way, whisper } from "./dom.js";
import { nightName, now, plural, share, short, until, versionName, when, words } from "./format.js";
import { legend, life } from "./hypnogram.js";
import { lineage } from "./lineage.js";
import { matrix } from "./matrix.js";
import { state } from "./overview.js";
import { follow, rest } from "./sse.js";
import { nightsTable, schedulesTable, versionsTable } from "./tables.js";

const LOOK_MILLISECONDS = 5000;
const QUICK_MILLISECONDS = 1000;
const GATHER_MILLISECONDS = 150;
const ROLLOUTS = 5;
const PROMOTIONS = new Set(["promotion", "rollback", "revocation", "erasure"]);

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
    this.head = section(null, (data) => this.drawHead(data), "head");
    this.night = section(null, (data) => this.drawNight(data), "tonight");
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
    const after = this.data.nights.find((night) => night.id === sleep)?.events.at(-1)?.seq ?? 0;
    const told = (event) => {
      if (event.type === "sleep.stage_started") whisper(`${this.name}: ${words(event.data.stage)}`);
      if (event.type === "sleep.progress") this.progressed(event);
      else this.wake();
    };
    await follow(sleep, { after, signal: this.signal, told });
    this.wake();
  }

  progressed(event) {
    this.progress = event;
    this.night.show(this.tonight());
  }

  show() {
    const { data } = this;
    const { versions, numbers, status } = data;
    const active = status.active_version;
    this.head.show({
      deployment: data.deployment,
      status,
      last: data.nights.find((night) => night.recall !== null),
      next: nextSleep(data.schedules),
      versions,
      numbers,
    });
    this.night.show(this.tonight());
    const moment = status.current_sleep || data.nights.length === 0 ? Math.floor(now()) : 60 * Math.ceil(now() / 60);
    this.life.show({ nights: data.nights, depths: data.depths, numbers, versions, active, until: moment, rollouts: data.rollouts });
    this.matrix.show({ matrix: data.matrix, versions, numbers });
    this.experts.show({ experts: data.experts, versions, numbers, active, open: openNow(data) });
    this.nights.show({ nights: data.nights, versions, numbers, has_more: data.has_more });
    this.versions.show({ versions, numbers, active, rollouts: data.rollouts, chosen: data.experts?.version });
    this.schedules.show({ schedules: data.schedules });
  }

  nameOf(id) {
    return versionName(id, this.data.versions, this.numbers);
  }

  tonight() {
    const { status, nights } = this.data;
    const night = nights.find((one) => one.id === status.current_sleep);
    const rollout = this.data.rollouts?.find((one) => one.status === "running") ?? null;
    if (!night) return { rollout };
    const { stage, step, total_steps } = { stage: night.phase, ...night.progress, ...this.progressOf(night) };
    return {
      rollout,
      id: night.id,
      status: night.status,
      waiting: night.waiting,
      stage,
      step,
      total_steps,
      attempt: night.attempt,
      began: night.created_at,
    };
  }

  progressOf(night) {
    const { progress } = this;
    const last = night.events.at(-1);
    if (!progress || (last && progress.seq < last.seq)) return {};
    return { step: progress.data.step, total_steps: progress.data.total_steps };
  }

  drawHead({ deployment, status, last, next, versions }) {
    const active = status.active_version;
    const back = () => this.rollBack();
    const sleep = () => this.decided(startSleep(deployment, status), "The sleep has begun.");
    const facts = [
      ["Serves", this.nameOf(active), short(active)],
      ["Recall", share(last?.recall), last ? `of ${nightName(last.id, this.numbers)}` : "no night yet"],
      ["Waiting", plural(status.pending.experiences, "experience"), plural(status.pending.tokens, "token")],
      ["Next sleep", next ? until(next) : "when told", next ? when(next) : "no schedule"],
    ];
    return [
      el(
        "div",
        { class: "title" },
        el(
          "div",
          {},
          el("h1", {}, deployment.name),
          state(status.state),
          el(
            "p",
            { class: "muted clip", title: deployment.base_model.model },
            deployment.base_model.model.split("/").slice(-2).join("/"),
          ),
        ),
        el(
          "div",
          { class: "actions" },
          earlier(active, versions)
            ? el("button", { type: "button", "data-focus": "back", on: { click: back } }, "Roll back")
            : null,
          el(
            "button",
            {
              type: "button",
              class: "primary",
              "data-focus": "sleep",
              disabled: Boolean(status.current_sleep),
              on: { click: sleep },
            },
            "Start a sleep",
          ),
        ),
      ),
      deployment.error ? el("p", { class: "wrong", role: "alert" }, deployment.error) : null,
      el(
        "dl",
        { class: "stats" },
        facts.map(([name, value, more]) =>
          el("div", {}, el("dt", {}, name), el("dd", {}, value), el("dd", { class: "muted" }, more)),
        ),
      ),
    ];
  }

  drawNight({ rollout, ...night }) {
    const parts = [];
    if (rollout)
      parts.push(
        el(
          "div",
          { class: "card live", role: "group", "aria-label": "Rollout" },
          el("p", {}, el("strong", {}, `${words(rollout.kind)} to ${this.nameOf(rollout.to_version)}`), ` ${canary(rollout)}`),
          rollout.canary
            ? el(
                "div",
                { class: "actions" },
                el(
                  "button",
                  {
                    type: "button",
                    "data-focus": "abort",
                    on: { click: () => this.decided(abortRollout(rollout, this.nameOf(rollout.to_version)), "The canary ends.") },
                  },
                  "End the canary",
                ),
              )
            : null,
        ),
      );
    if (!night.id) return parts;
    const name = nightName(night.id, this.numbers);
    const bar = el("progress", {
      "aria-label": "Progress of the stage",
      ...(night.total_steps ? { max: night.total_steps, value: night.step } : {}),
    });
    const cancel = () => this.decided(cancelSleep(night.id, name), "The night is being cancelled.");
    const where = night.stage ? words(night.stage) : night.status;
    parts.push(
      el(
        "div",
        { class: "card live", role: "group", "aria-label": "Tonight" },
        el(
          "p",
          {},
          el("strong", {}, name),
          ` ${night.status}, since ${when(night.began)}${night.attempt > 1 ? `, attempt ${night.attempt}` : ""}`,
        ),
        el(
          "p",
          { class: "stage" },
          el("span", {}, night.waiting ?? where),
          el("span", { class: "muted" }, night.total_steps ? ` ${night.step} of ${night.total_steps}` : ""),
        ),
        bar,
        el(
          "div",
          { class: "actions" },
          el("a", { class: "button", "data-focus": "watch", href: way("deployments", this.name, "nights", night.id) }, "Watch"),
          el(
            "button",
            { type: "button", "data-focus": "cancel", on: { click: cancel }, disabled: night.status === "cancelling" },
            "Cancel",
          ),
        ),
      ),
    );
    return parts;
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
    const pages = el(
      "div",
      { class: "pages" },
      this.offset + drawn.shown < nights.length
        ? el("button", { type: "button", class: "quiet", "data-focus": "turn-back", on: { click: turn(drawn.shown) } }, "Earlier")
        : null,
      this.offset
        ? el("button", { type: "button", class: "quiet", "data-focus": "turn-on", on: { click: turn(-drawn.shown) } }, "Later")
        : null,
    );
    const changes = (rollouts ?? []).filter((rollout) => PROMOTIONS.has(rollout.kind) && rollout.status === "succeeded");
    const last =
      changes[0] && versions
        ? el(
            "p",
            { class: "muted" },
            `Last ${words(changes[0].kind)}: to ${this.nameOf(changes[0].to_version)}, ${when(changes[0].finished_at)}. ${changes[0].reason ?? ""}`,
          )
        : null;
    return [
      drawn.drawn,
      el(
        "div",
        { class: "under" },
        legend([
          ["by-before", "a version answers"],
          ["by-fast", "with fast memory"],
          ["restart", "learner started again"],
        ]),
        pages,
      ),
      last,
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

  drawVersions({ versions, numbers, active, rollouts, chosen }) {
    if (versions === null) return el("p", { class: "empty" }, "This key may not read versions.");
    const name = (id) => this.nameOf(id);
    const decide = {
      Promote: (version) => this.decided(promote(version, { name, active, refused: refused(version) }), "The promotion has begun."),
      "Roll back": () => this.rollBack(),
      Reject: (version) => this.decided(reject(version, { name }), `${name(version.id)} is rejected.`),
      Revoke: (version) => this.decided(revoke(version, { name, active }), `${name(version.id)} is revoked.`),
    };
    const choose = (version) => {
      this.chosen = version === active ? undefined : version;
      this.wake();
      this.experts.node.parentElement.scrollIntoView({ block: "nearest" });
    };
    const told = (rollouts ?? []).map((one) =>
      el(
        "li",
        {},
        `${when(one.created_at)} ${words(one.kind)} ${name(one.from_version)} to ${name(one.to_version)}: ${canary(one)}${one.reason ? `, "${one.reason}"` : ""}`,
      ),
    );
    return [
      versionsTable({ versions, numbers, active, chosen }, { decide, choose }),
      told.length ? [el("h3", {}, "Rollouts"), el("ul", { class: "rollouts" }, told)] : null,
    ];
  }

  rollBack() {
    const { deployment, status, versions } = this.data;
    const active = status.active_version;
    return this.decided(
      rollBack(deployment, { name: (id) => this.nameOf(id), active, to: earlier(active, versions) }),
      "It is rolled back.",
    );
  }

  async decided(dialog, words_) {
    const result = await dialog;
    if (result === null) return;
    say(words_);
    this.wake();
  }
}

function canary({ status, canary: part, error }) {
  const some = part
    ? `, ${part.percent} % for ${part.seconds} s, ${plural(part.requests ?? 0, "request")}, ${plural(part.errors ?? 0, "error")}`
    : "";
  return `${status}${some}${error ? `, ${error.message ?? error}` : ""}`;
}

// Why a version is promoted only by somebody who may pass over gates.
function refused(version) {
  const failed = (version.gates ?? []).filter((gate) => gate.passed === false).map((gate) => words(gate.name));
  return version.status === "rejected" && !failed.length ? ["rejected"] : failed;
}

// The youngest ancestor that may serve: where a rollback goes.
function earlier(id, versions) {
  const of = (one) => versions?.find((version) => version.id === one);
  let found = of(of(id)?.parent);
  while (found && ["revoked", "deleted"].includes(found.status)) found = of(found.parent);
  return found?.id ?? null;
}

function nextSleep(schedules) {
  const times = (schedules ?? []).filter((schedule) => !schedule.suspend && schedule.next_at).map((schedule) => schedule.next_at);
  return times.length ? Math.min(...times) : null;
}

// Experts that are written now: the fast one, where it serves, and the one that tonight opened.
function openNow({ nights, status }) {
  const events = nights.find((night) => night.id === status.current_sleep)?.events ?? [];
  const opened = events.filter((event) => event.data.into).map((event) => event.data.into);
  const fast = status.fast_memory?.chunks || events.some((event) => event.type === "deployment.fast_memory_live");
  return fast ? [[0, 0], ...opened] : opened;
}
