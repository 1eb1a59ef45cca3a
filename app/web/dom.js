// Small helpers for elements and numbers. Whatever comes from outside becomes text, never markup.

export const at = (id) => document.getElementById(id);

/** An element with properties (`on...` are listeners, `data-`, `aria-` and the like attributes) and children. */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name in made && !name.includes("-")) made[name] = value;
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

export const count = (number) => (number === null || number === undefined ? "–" : whole.format(number));
export const loss = (number) => (number === null || number === undefined ? "–" : number < 1e6 ? number.toFixed(4) : number.toExponential(3));

export function bytes(number) {
  if (number === null || number === undefined) return "–";
  const units = ["B", "KiB", "MiB", "GiB"];
  const power = Math.min(units.length - 1, Math.floor(Math.log2(Math.max(1, number)) / 10));
  return `${(number / 1024 ** power).toFixed(power ? 1 : 0)} ${units[power]}`;
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 90) return `${seconds.toFixed(0)} s`;
  if (seconds < 5400) return `${(seconds / 60).toFixed(1)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

export const moment = (iso) => new Date(iso).toLocaleString([], { dateStyle: "short", timeStyle: "short" });

/** A model as a list of them has it: several may bear one name. */
export function nameOf(model) {
  const best = model.best?.val_loss ? `${loss(model.best.val_loss)}, ` : "";
  return `${model.name} (${best}${moment(model.created_at)})`;
}

/** A character as a person can see it. */
export function visible(character) {
  const names = { " ": "␣", "\n": "↵", "\r": "␍", "\t": "⇥", "\u00a0": "⍽", "\u200b": "ZWSP", "\ufeff": "BOM" };
  return names[character] ?? (/^\p{C}|\p{Z}$/u.test(character) ? `U+${character.codePointAt(0).toString(16).toUpperCase()}` : character);
}

/** Terms and what they are, as a list of definitions. */
export function define(list, pairs) {
  list.replaceChildren(
    ...pairs.map(([term, told]) => element("div", {}, element("dt", {}, term), element("dd", {}, String(told)))),
  );
}

/** A text in which what stands between backticks is code. */
export function marked(text) {
  return text.split("`").map((part, n) => (n % 2 ? element("code", {}, part) : part));
}

/** Options of a select; the one that was chosen stays, if it is still there. */
export function fill(select, options) {
  const before = select.value;
  select.replaceChildren(...options.map(([value, text]) => element("option", { value }, text)));
  if (options.some(([value]) => value === before)) select.value = before;
}

/** What is kept as long as the tab is open, over a reload too, as far as the browser lets the page. */
export function kept(name) {
  try {
    return JSON.parse(sessionStorage.getItem(name));
  } catch {
    return null;
  }
}

/** Keep what `told()` says when the page goes. */
export function keepAtTheEnd(name, told) {
  addEventListener("pagehide", () => {
    try {
      sessionStorage.setItem(name, JSON.stringify(told()));
    } catch {
      // not allowed, or too large: then it is not kept
    }
  });
}

/** Change what a place shows: the focus does not get lost with a button of it that goes, but moves to the first one. */
export function keepingFocus(place, change) {
  const had = place.contains(document.activeElement);
  change();
  const { activeElement } = document;
  if (!had || (place.contains(activeElement) && activeElement.checkVisibility())) return;
  const next = [...place.querySelectorAll("button, a, [tabindex]")].find((one) => one.checkVisibility() && !one.disabled);
  (next ?? at("content")).focus({ preventScroll: true });
}
