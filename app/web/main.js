// The parts of the page, of which the address behind the `#` says which one is shown.

import { askForKey, hasKey } from "./api.js";
import { at } from "./dom.js";
import * as runs from "./runs.js";
import { complain, forgive, say, telling } from "./say.js";
import * as surprise from "./surprise.js";
import * as texts from "./texts.js";
import * as train from "./train.js";
import * as write from "./write.js";

const PARTS = { texts, train, runs, write, surprise };
let shown = null;
let turns = 0;

async function go() {
  const mine = (turns += 1);
  const [name, id] = location.hash.slice(1).split("/");
  const part = Object.hasOwn(PARTS, name) ? name : "texts";
  forgive();
  if (shown !== part) say("");
  for (const other of Object.keys(PARTS)) {
    at(other).hidden = other !== part;
    if (other !== part && other === shown) PARTS[other].hide?.();
  }
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${part}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${at(`${part}-title`).textContent} · Charsmith`;
  if (shown !== null && shown !== part) at("content").focus({ preventScroll: true });
  shown = part;
  // What is not listed yet cannot be chosen: who is quick would be told that there is nothing.
  const submits = at(part).querySelectorAll("form button[type=submit]");
  for (const button of submits) button.disabled = true;
  try {
    await PARTS[part].show(id ? decoded(id) : undefined);
  } catch (error) {
    if (mine === turns) complain(error);
  } finally {
    if (mine === turns || shown !== part) for (const button of submits) button.disabled = false;
  }
}

/** As an address has it; one that nobody made is left as it is, and not found. */
function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

async function changeKey() {
  try {
    await askForKey("The key to use from now on.");
  } catch (error) {
    if (hasKey()) return; // it stays as it was
    throw error;
  }
  await go();
}

at("key-change").hidden = !hasKey();
at("key-change").addEventListener("click", telling(changeKey));
for (const part of Object.values(PARTS)) part.begin();
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address says which part is shown, and stays
  at("content").focus();
});
addEventListener("hashchange", go);
go();
