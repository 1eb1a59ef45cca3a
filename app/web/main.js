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

async function go() {
  const [name, id] = location.hash.slice(1).split("/");
  const part = PARTS[name] ? name : "texts";
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
    await PARTS[part].show(id ? decodeURIComponent(id) : undefined);
  } catch (error) {
    if (error.name !== "AbortError") complain(error);
  } finally {
    for (const button of submits) button.disabled = false;
  }
}

at("key-change").hidden = !hasKey();
at("key-change").addEventListener("click", telling(() => askForKey("The key to use from now on.").then(go)));
for (const part of Object.values(PARTS)) part.begin();
addEventListener("hashchange", go);
go();
