// Texts: upload, statistics, list.

import { call, get, path, remove } from "./api.js";
import { at, bytes, count, element, keepingFocus, moment, visible } from "./dom.js";
import { complain, goTo, Mistake, say, telling } from "./say.js";

/** A larger file is not read in the browser for its statistics: the page would stand still for seconds. */
const MOST_READ = 8 * 1024 * 1024;
const FREQUENT = 12;
const PAGE = 20;
let shown = [];
let next = null;
let listings = 0;
let uploads = 0;

export function begin() {
  const form = at("upload");
  const choose = at("upload-file");
  choose.addEventListener("change", telling(() => choose.files.length && upload(choose.files[0]), { again: true }));
  form.addEventListener("submit", (event) => event.preventDefault());
  for (const name of ["dragenter", "dragover"]) {
    form.addEventListener(name, (event) => {
      event.preventDefault();
      form.classList.add("over");
    });
  }
  form.addEventListener("dragleave", () => form.classList.remove("over"));
  // Anywhere: a file that missed the field would else replace the page.
  addEventListener("dragover", (event) => hasFiles(event) && event.preventDefault());
  const take = telling(dropped, { again: true });
  addEventListener("drop", (event) => hasFiles(event) && take(event)); // a word that is dragged into a field is the field's
  at("texts-more").addEventListener("click", telling(() => list(next)));
}

export const show = () => list(null);

const hasFiles = (event) => event.dataTransfer.types.includes("Files");

async function dropped(event) {
  at("upload").classList.remove("over");
  const files = [...event.dataTransfer.files]; // the event forgets them when it is over
  if (files.length > 1) throw new Mistake("One text at a time, please.");
  if (!files.length) return;
  if (at("texts").hidden) await goTo("#texts");
  await upload(files[0]);
}

async function upload(file) {
  const progress = at("upload-progress");
  const body = new FormData();
  body.append("file", file);
  const name = at("upload-name").value;
  if (name.trim()) body.append("name", name.trim());
  uploads += 1;
  progress.hidden = false;
  say(`Uploading ${file.name}, ${bytes(file.size)} …`);
  try {
    const corpus = await (await call("POST", "corpora", { body })).json();
    say(corpus.notice ?? `${corpus.name} is uploaded.`);
    if (at("upload-name").value === name) at("upload-name").value = "";
    await Promise.all([describe(corpus, file), list(null)]);
    at("text").scrollIntoView({ block: "nearest" });
  } catch (error) {
    say("");
    throw error;
  } finally {
    uploads -= 1;
    progress.hidden = uploads === 0;
    at("upload-file").value = "";
  }
}

/** The card of one text. What only its bytes can tell is told of a file that was just chosen. */
async function describe(corpus, file) {
  const numbers = [
    ["Characters", count(corpus.characters)],
    ["Different ones", count(corpus.vocabulary_size)],
    ["Size", bytes(corpus.bytes)],
  ];
  let frequent = null;
  if (file && file.size <= MOST_READ) {
    const text = await file.text();
    const found = statistics(text);
    numbers.push(["Lines", count(found.lines)], ["Words", count(found.words)]);
    frequent = element(
      "div",
      {},
      element("h4", {}, "Most frequent characters"),
      element(
        "ul",
        { className: "frequent" },
        ...found.frequent.map(([character, times]) =>
          element("li", {}, element("code", {}, visible(character)), `${((100 * times) / found.characters).toFixed(1)} %`),
        ),
      ),
    );
  }
  const list = element("dl", { className: "numbers" });
  list.append(...numbers.map(([term, told]) => element("div", {}, element("dt", {}, term), element("dd", {}, told))));
  const card = at("text");
  card.replaceChildren(
    element(
      "div",
      { className: "row" },
      element("h3", { id: "text-name" }, corpus.name),
      element("span", { className: "buttons" }, element("button", { type: "button", className: "main", onclick: () => train(corpus) }, "Train on it")),
    ),
    list,
    ...(frequent ? [frequent] : []),
    element("h4", {}, "How it begins"),
    element("pre", {}, corpus.preview),
  );
  card.hidden = false;
}

function statistics(text) {
  const times = new Map();
  let characters = 0;
  for (const character of text) {
    times.set(character, (times.get(character) ?? 0) + 1);
    characters += 1;
  }
  let words = 0;
  for (const _ of text.matchAll(/[\p{L}\p{N}]+/gu)) words += 1; // one by one: all of them would be held as texts
  return {
    characters,
    lines: (times.get("\n") ?? 0) + (text && !text.endsWith("\n") ? 1 : 0),
    words,
    frequent: [...times].sort((a, b) => b[1] - a[1]).slice(0, FREQUENT),
  };
}

const train = (corpus) => {
  location.hash = `#train/${corpus.id}`;
};

async function list(after) {
  const mine = (listings += 1);
  const page = await get(`corpora?limit=${PAGE}${after ? `&after=${encodeURIComponent(after)}` : ""}`);
  if (mine !== listings) return; // a later one was asked for meanwhile
  shown = after ? [...shown, ...page.data] : page.data;
  next = page.next;
  keepingFocus(at("texts"), () => {
    at("texts-list").tBodies[0].replaceChildren(...shown.map(row));
    at("texts-list").hidden = !shown.length;
    at("texts-empty").hidden = shown.length > 0;
    at("texts-more").hidden = !next;
  });
}

function row(corpus) {
  return element(
    "tr",
    {},
    element("td", { className: "name" }, element("button", { type: "button", onclick: telling(() => describe(corpus, null)) }, corpus.name)),
    element("td", { className: "number" }, count(corpus.characters)),
    element("td", { className: "number" }, count(corpus.vocabulary_size)),
    element("td", {}, moment(corpus.created_at)),
    element(
      "td",
      {},
      element(
        "span",
        { className: "buttons" },
        element("button", { type: "button", "aria-label": `Train on ${corpus.name}`, onclick: () => train(corpus) }, "Train"),
        element("button", { type: "button", "aria-label": `Delete ${corpus.name}`, onclick: telling(() => drop(corpus)) }, "Delete"),
      ),
    ),
  );
}

async function drop(corpus) {
  if (!confirm(`Delete the text ${corpus.name}? Models that were trained on it stay.`)) return;
  await remove(path("corpora", corpus.id));
  at("text").hidden = true;
  say(`${corpus.name} is deleted.`);
  await list(null).catch(complain);
}
