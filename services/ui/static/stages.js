// From a sleep's events to what is drawn of it. Pure: events in, spans out; `depths` is the service's own table of what is drawn where.

const ENDS = new Set(["sleep.succeeded", "sleep.failed", "sleep.cancelled"]);
const STANDS_STILL = new Set([...ENDS, "sleep.paused"]);
const GOES_ON = new Set(["sleep.started", "sleep.resumed", "sleep.retried"]);
export const AWAKE = 0;

export function depthOf(stage, depths) {
  const found = depths.findIndex((depth) => depth.stages.some((name) => `${stage}_`.startsWith(`${name}_`)));
  return found < 0 ? null : found;
}

// Every stage with its time. One that was broken off ends where the next attempt begins; one that runs has no end.
export function stagesOf(events) {
  const spans = [];
  let open = null;
  const close = (at, broken) => {
    if (open) Object.assign(open, { to: at, broken, seconds: open.seconds ?? at - open.from });
    open = null;
  };
  for (const event of events) {
    if (event.type === "sleep.stage_started") {
      close(event.created_at, true);
      open = { stage: event.data.stage, from: event.created_at, to: null, broken: false, seconds: null };
      spans.push(open);
    } else if (event.type === "sleep.stage_finished" && open?.stage === event.data.stage) {
      open.seconds = event.data.seconds ?? null;
      close(event.created_at, false);
    } else if (STANDS_STILL.has(event.type) || GOES_ON.has(event.type)) {
      close(event.created_at, true);
    }
  }
  return spans;
}

// The steps of the hypnogram: from the request to the end (or `until`), each {depth, from, to}. What takes no visible time leaves the
// depth as it was. Every night begins and ends awake, and a pause is awake, too.
export function stepsOf(events, depths, until) {
  if (!events.length) return [];
  const end = endOf(events) ?? until;
  const steps = [{ depth: AWAKE, from: events[0].created_at, to: end }];
  for (const { type, created_at: from, data } of events) {
    const depth = type === "sleep.stage_started" ? depthOf(data.stage, depths) : STANDS_STILL.has(type) ? AWAKE : null;
    const last = steps.at(-1);
    if (depth === null || depth === last.depth || from >= end) continue;
    last.to = from;
    steps.push({ depth, from, to: end });
  }
  return steps;
}

// When it ended, unless it was tried again.
export function endOf(events) {
  const last = events.findLast((event) => ENDS.has(event.type) || GOES_ON.has(event.type));
  return last && ENDS.has(last.type) ? last.created_at : null;
}

// Who answers, as spans: {by: "before" | "fast" | "after", from, to}.
export function servedBy(events, until) {
  const end = endOf(events) ?? until;
  const changes = { "deployment.fast_memory_live": "fast", "deployment.put_back": "before", "version.promoted": "after" };
  const spans = [{ by: "before", from: events[0]?.created_at ?? end, to: end }];
  for (const event of events.filter((one) => one.type in changes)) {
    spans.at(-1).to = event.created_at;
    spans.push({ by: changes[event.type], from: event.created_at, to: end });
  }
  return spans;
}

// Learners that start after the first one of their run: something had died.
export function restarts(events) {
  const runs = new Set();
  return events.filter((event) => {
    if (event.type !== "sleep.learner_started" || event.data.rank) return false;
    const again = runs.has(event.data.run);
    runs.add(event.data.run);
    return again;
  });
}

export function trainRuns(events) {
  return [...new Set(events.filter((event) => event.type === "sleep.learner_started").map((event) => event.data.run))];
}

export function jobs(events) {
  return events.filter((event) => event.type === "sleep.started" && event.data.job).map((event) => event.data.job);
}

// Losses by task: [{at, loss}], one curve for each run.
export function lossesOf(events) {
  const runs = new Map();
  for (const { type, created_at, data } of events) {
    if (type !== "sleep.progress" || !(data.loss > 0)) continue;
    if (!runs.has(data.run)) runs.set(data.run, { task: data.task, points: [] });
    runs.get(data.run).points.push({ at: created_at, loss: data.loss });
  }
  return [...runs.values()];
}
