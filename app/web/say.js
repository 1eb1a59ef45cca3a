// Messages to the person: what is wrong stays until it is closed, what is done is told once.

import { NoKey, Refused } from "./api.js";
import { at } from "./dom.js";

/** The person asked for something that cannot be; the message says what to do. */
export class Mistake extends Error {}

export function say(text) {
  at("status").textContent = text;
}

export function complain(error) {
  const unreachable = error instanceof TypeError && /fetch|network/i.test(error.message);
  at("alert-text").textContent = unreachable ? "The service cannot be reached." : error.message;
  at("alert").hidden = false;
  const foreseen = unreachable || error instanceof NoKey || error instanceof Mistake || error instanceof Refused;
  if (!foreseen) console.error(error);
}

export function forgive() {
  at("alert").hidden = true;
}

at("alert-close").addEventListener("click", forgive);

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
      if (error.name !== "AbortError") {
        say("");
        complain(error);
      }
    } finally {
      busy = false;
    }
  };
}
