// Numbers, times and names as people read them.

const MINUTE = 60;
const HOUR = 3600;
const DAY = 86_400;

export function now() {
  return Date.now() / 1000;
}

// "02:14" today, "12 Mar, 02:14" before or after.
export function when(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const date = new Date(1000 * seconds);
  const today = date.toDateString() === new Date().toDateString();
  const clock = { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
  return new Intl.DateTimeFormat(undefined, today ? clock : { day: "numeric", month: "short", ...clock }).format(date);
}

export function clock(seconds) {
  const shape = { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" };
  return new Intl.DateTimeFormat(undefined, shape).format(new Date(1000 * seconds));
}

// "48 s", "12 min", "3 h 20 min", "2 d 4 h".
export function took(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 2 * MINUTE) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / MINUTE);
  if (minutes < 60) return `${minutes} min`;
  if (seconds < DAY) return parts(minutes, 60, "h", "min");
  return parts(Math.round(seconds / HOUR), 24, "d", "h");
}

function parts(all, of, large, small) {
  return all % of ? `${Math.floor(all / of)} ${large} ${all % of} ${small}` : `${all / of} ${large}`;
}

// "in 3 h", or "due" where it has passed.
export function until(seconds) {
  const left = seconds - now();
  return left > 0 ? `in ${took(left)}` : "due";
}

export function share(value) {
  return value === null || value === undefined ? "–" : value.toFixed(2);
}

export function precise(value) {
  return value === null || value === undefined ? "–" : value.toFixed(3);
}

export function count(value) {
  return new Intl.NumberFormat().format(value);
}

// "ver_5f2c…": enough of an id to tell it from its neighbours.
export function short(id) {
  const text = String(id);
  const end = text.indexOf("_") + 7;
  return text.length > end + 1 ? `${text.slice(0, end)}…` : text;
}

export function words(name) {
  return String(name).replaceAll("_", " ");
}

export function plural(number, one, many = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : many}`;
}

// What a version is called: v3 woke from night 3, v0 is the first one.
export function versionName(id, versions, numbers) {
  const version = versions?.find((one) => one.id === id);
  if (version?.sleep && numbers[version.sleep]) return `v${numbers[version.sleep]}`;
  return version && !version.parent ? "v0" : short(id);
}

// "night 3", or "night 3, teachers" where other models taught in it.
export function nightName(night, numbers) {
  const [sleep, of] = String(night).split("+");
  return `night ${numbers[sleep] ?? short(sleep)}${of ? `, ${words(of)}` : ""}`;
}
