// Messages to the person: what is wrong stays until it is closed, what is done is told once.

import { NoKey, Refused, Unreachable } from "./api.js";
import { at } from "./dom.js";

/** The person asked for something that cannot be; the message says what to do. */
export class Mistake extends Error {}

export function say(text) {
  at("status").textContent = text;
}

export function complain(error) {
  if (error.name === "AbortError") return;
  at("alert-text").textContent = error.message;
  at("alert").hidden = false;
  const foreseen = [Unreachable, NoKey, Mistake, Refused].some((kind) => error instanceof kind);
  if (!foreseen) console.error(error);
}

/** Show another part of the page. What is said afterwards stays: what was said before goes with the old one. */
export const goTo = (hash) =>
  new Promise((resolve) => {
    if (location.hash === hash) return resolve();
    addEventListener("hashchange", () => resolve(), { once: true });
    location.hash = hash;
  });

export function forgive() {
  at("alert").hidden = true;
}

at("alert-close").addEventListener("click", () => {
  forgive();
  at("content").focus({ preventScroll: true }); // the button is gone
});

/**
 * A listener whose errors are told; what was told before goes. While it works it does not begin once more, as a double
 * click would have it, unless it may.
 */
export function telling(work, { again = false } = {}) {
  let busy = false;
  return async (event) => {
    event?.preventDefault?.();
    if (busy && !again) return;
    busy = true;
    forgive();
    try {
      await work(event);
    } catch (error) {
      if (error.name !== "AbortError") say("");
      complain(error);
    } finally {
      busy = false;
    }
  };
}
