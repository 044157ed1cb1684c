// The REST interface. The key lives in this tab's sessionStorage, and goes nowhere but into the Authorization header of this service.

const KEY = "circadian.key";

export class Problem extends Error {
  constructor(status, code, detail) {
    super(detail);
    this.status = status;
    this.code = code;
  }
}

export const key = {
  get: () => sessionStorage.getItem(KEY),
  set: (value) => sessionStorage.setItem(KEY, value),
  forget: () => sessionStorage.removeItem(KEY),
};

export function path(...parts) {
  return `/v1/${parts.map(encodeURIComponent).join("/")}`;
}

export async function ask(address, { method = "GET", body, query = {}, signal, headers = {} } = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== null);
  const asked = given.length ? `${address}?${new URLSearchParams(given)}` : address;
  const answer = await sent(asked, {
    method,
    signal,
    headers: body === undefined ? headers : { "Content-Type": "application/json", ...headers },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  return answer.status === 204 ? null : answer.json();
}

// What a key may not read, or what is not there, is null.
export async function askIfAllowed(address, more) {
  try {
    return await ask(address, more);
  } catch (problem) {
    if (problem instanceof Problem && [403, 404].includes(problem.status)) return null;
    throw problem;
  }
}

// Work that nothing waits for. What fails because the page was left is nobody's business; what is refused is told.
export function beside(work, signal, tell) {
  work.catch((error) => {
    if (signal.aborted) return;
    if (!(error instanceof Problem)) throw error;
    tell(error.message);
  });
}

// Whether asking again may help: nobody answers, or not now.
export function passes(error) {
  return error instanceof Problem && (error.status === 0 || error.status === 429 || error.status >= 500);
}

// A response that went well. Throws a Problem, whatever else was answered.
export async function sent(address, { headers = {}, ...more }) {
  const all = { ...headers, Authorization: `Bearer ${key.get() ?? ""}` };
  let answer;
  try {
    answer = await fetch(address, { cache: "no-store", credentials: "omit", redirect: "error", ...more, headers: all });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, "unreachable", "The service does not answer.");
  }
  if (answer.ok) return answer;
  const told = await answer.json().catch(() => ({}));
  throw new Problem(answer.status, told.error?.code ?? "unknown", told.detail ?? `The service answered ${answer.status}.`);
}
