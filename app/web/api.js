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
    this.retryAfter = Number(retryAfter) || 0;
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

/** The service could not be reached, or the connection broke off. */
export class Unreachable extends Error {
  constructor() {
    super("The service cannot be reached.");
  }
}

/** What a header can carry; whatever else was typed is no key of any service. */
const CAN_BE_SENT = /^[\x21-\x7e]+$/;
const INVALID = "This key is not valid (any more).";

/** Where a key is kept: in this tab, or in the browser; where that is not allowed, as long as the page is open. */
let inPage = null;
const STORES = { tab: () => sessionStorage, browser: () => localStorage };

function stored(name) {
  try {
    return STORES[name]().getItem(KEPT);
  } catch {
    return null;
  }
}

function keep(key, name) {
  inPage = key;
  for (const store of Object.keys(STORES)) {
    try {
      if (store === name && key !== null) STORES[store]().setItem(KEPT, key);
      else STORES[store]().removeItem(KEPT);
    } catch {
      // not allowed to keep anything: then it is in the page alone
    }
  }
  at("key-change").hidden = key === null;
}

const keyNow = () => inPage ?? stored("tab") ?? stored("browser");
export const hasKey = () => keyNow() !== null;
let asking = null;

/** One dialog, however many calls want a key at the same time. Raises NoKey where none is given. */
export function askForKey(why) {
  asking ??= new Promise((resolve, reject) => {
    const dialog = at("key");
    at("key-why").textContent = why;
    at("key-text").value = "";
    at("key-forget").hidden = !hasKey();
    dialog.returnValue = "";
    dialog.addEventListener(
      "close",
      () => {
        asking = null;
        const key = at("key-text").value.trim();
        at("key-text").value = "";
        if (dialog.returnValue === "forget") keep(null);
        if (dialog.returnValue !== "use" || !key) return reject(new NoKey());
        if (!CAN_BE_SENT.test(key)) return resolve(askForKey(INVALID));
        keep(key, at("key-stay").checked ? "browser" : "tab");
        resolve();
      },
      { once: true },
    );
    dialog.showModal();
  });
  return asking;
}

/**
 * The answer to a call, a 2xx. Raises Refused, NoKey, Unreachable, AbortError. A `quiet` one, which the person did not
 * ask for, asks for no key either.
 */
export async function call(method, path, { json, body, headers = {}, signal, quiet = false } = {}) {
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
    }).catch(unreachable);
    if (answer.status === 401) {
      if (quiet) throw new NoKey();
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

/** Browsers tell it with a TypeError, each in its own words. */
function unreachable(error) {
  throw error instanceof TypeError ? new Unreachable() : error;
}

/** A seed that JavaScript would round stays the text that it was, where the browser tells. */
const exact = (key, value, context) => (key === "seed" && value !== null && !Number.isSafeInteger(value) ? (context?.source ?? value) : value);

/** A path of the service, whatever its parts are. */
export const path = (...parts) => parts.map(encodeURIComponent).join("/");

const parsed = async (answer) => JSON.parse(await answer.text().catch(unreachable), exact);
export const get = async (path, options) => parsed(await call("GET", path, options));
export const post = async (path, json, options) => parsed(await call("POST", path, { json: json ?? {}, ...options }));
export const ask = async (path) => parsed(await call("POST", path));
export const remove = (path) => call("DELETE", path);

const PAGE = 100;
const MOST_LISTED = 2000;

/** A whole list, newest first: of a few thousand the newest. */
export async function everything(list) {
  const found = [];
  for (let after = null; found.length < MOST_LISTED; ) {
    const page = await get(`${list}?limit=${PAGE}${after ? `&after=${encodeURIComponent(after)}` : ""}`);
    found.push(...page.data);
    after = page.next;
    if (!after) break;
  }
  return found;
}

const LARGEST_SEED = 2n ** 63n - 1n;

/** What was typed as a seed, in digits, or ""; a number of JavaScript would round it. Null if it is none. */
export function seedOf(typed) {
  const text = typed.trim();
  if (!text) return "";
  return /^[0-9]+$/.test(text) && BigInt(text) <= LARGEST_SEED ? BigInt(text).toString() : null;
}

/** Stands for a seed in an object that becomes JSON; before whatever a person wrote, which might look the same. */
export const SEED = "\u0000";
export function jsonWith(seed, body) {
  const text = JSON.stringify(body);
  return seed ? text.replace(JSON.stringify(SEED), seed) : text;
}

/** Server-sent events of an answer: `{event, id, data}`, data parsed; comments are left out. */
export async function* eventsOf(answer) {
  const reader = answer.body.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  let whole = false;
  try {
    for (;;) {
      const { value, done } = await reader.read().catch(unreachable);
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
