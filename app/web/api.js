// Calls of the service. Addresses are relative, so that the page works below a path of a proxy's.

import { at } from "./dom.js";

const KEPT = "charsmith-key";

/** What the service said it was not willing to do. */
export class Refused extends Error {
  constructor(status, problem, retryAfter) {
    const fields = (problem.errors ?? []).map((one) => `${one.field}: ${one.message}`);
    const later = retryAfter ? ` Try again in ${retryAfter} s.` : "";
    super((fields.length ? fields.join("\n") : problem.detail ?? problem.title ?? `status ${status}`) + later);
    this.status = status;
    this.code = problem.code;
    this.errors = problem.errors ?? [];
    this.character = problem.character;
  }
}

/** The person chose not to give a key. */
export class NoKey extends Error {
  constructor() {
    super("Without a key the service answers nothing.");
  }
}

/** What a header can carry; whatever else was typed is no key of any service. */
const CAN_BE_SENT = /^[\x21-\x7e]+$/;
const INVALID = "This key is not valid (any more).";

const keyNow = () => sessionStorage.getItem(KEPT) ?? localStorage.getItem(KEPT);
export const hasKey = () => keyNow() !== null;
let asking = null;

/** One dialog, however many calls want a key at the same time. */
export function askForKey(why) {
  asking ??= new Promise((resolve, reject) => {
    const dialog = at("key");
    at("key-why").textContent = why;
    at("key-text").value = "";
    dialog.returnValue = "";
    dialog.addEventListener(
      "close",
      () => {
        asking = null;
        const key = at("key-text").value.trim();
        at("key-text").value = "";
        if (dialog.returnValue !== "use" || !key) return reject(new NoKey());
        if (!CAN_BE_SENT.test(key)) return resolve(askForKey(INVALID));
        sessionStorage.removeItem(KEPT);
        localStorage.removeItem(KEPT);
        (at("key-stay").checked ? localStorage : sessionStorage).setItem(KEPT, key);
        at("key-change").hidden = false;
        resolve();
      },
      { once: true },
    );
    dialog.showModal();
  });
  return asking;
}

/** The answer to a call, a 2xx. Raises Refused, NoKey, TypeError where the service is not reached, AbortError. */
export async function call(method, path, { json, body, headers = {}, signal } = {}) {
  for (;;) {
    const key = keyNow();
    const sent = { ...headers };
    if (key) sent.Authorization = `Bearer ${key}`;
    if (json !== undefined) sent["Content-Type"] = "application/json";
    const answer = await fetch(path, {
      method,
      headers: sent,
      body: json === undefined ? body : typeof json === "string" ? json : JSON.stringify(json),
      signal,
      credentials: "omit", // a login that the browser remembers is not this page's, and it would ask for one itself
      cache: "no-store",
    });
    if (answer.status === 401) {
      if (key === keyNow()) await askForKey(key ? INVALID : "This installation asks for an API key.");
      continue;
    }
    if (!answer.ok) {
      const problem = await answer.json().catch(() => ({}));
      throw new Refused(answer.status, problem, answer.headers.get("Retry-After"));
    }
    return answer;
  }
}

export const get = async (path, options) => (await call("GET", path, options)).json();
export const post = async (path, json, options) => (await call("POST", path, { json: json ?? {}, ...options })).json();
export const ask = async (path) => (await call("POST", path)).json();
export const remove = (path) => call("DELETE", path);

/** Server-sent events of an answer: `{event, id, data}`, data parsed; comments are left out. */
export async function* eventsOf(answer) {
  const reader = answer.body.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  let whole = false;
  try {
    for (;;) {
      const { value, done } = await reader.read();
      whole = done;
      if (done) return;
      rest += decoder.decode(value, { stream: true });
      const blocks = rest.split(/\r?\n\r?\n/);
      rest = blocks.pop();
      for (const block of blocks) {
        const found = { event: "message", id: null, data: "" };
        for (const line of block.split(/\r?\n/)) {
          const [, name, text] = /^(\w*): ?(.*)$/s.exec(line) ?? [];
          if (name === "data") found.data += text;
          else if (name === "event" || name === "id") found[name] = text;
        }
        if (found.data) yield { ...found, data: JSON.parse(found.data) };
      }
    }
  } finally {
    if (!whole) reader.cancel().catch(() => {});
  }
}
