// The playground: settings, a stream into the page, what each character might have been.

import { explainPanel, showAlternatives } from "./alternatives.js";
import { call, eventsOf, everything, get, jsonWith, path, post, Refused, SEED, seedOf } from "./api.js";
import { Chooser } from "./characters.js";
import { at, count, element, fill, keepAtTheEnd, kept, loss, nameOf, visible } from "./dom.js";
import { complain, Mistake, say, telling } from "./say.js";

/** Characters of the text that are read again, to go on from it or for what else one of them might have been. */
const MOST_READ_AGAIN = 50_000;
const TOP = 10;
/** Before the service is asked about a character: who holds a key down passes many. */
const SOON = 120;
const KEPT = "charsmith-written";
const GONE = new Set([404, 500]);
const SLIDERS = [
  ["temperature", 0, 2, 0.05, 0.8, "below 1 more careful, above 1 more daring, 0 always the likeliest"],
  ["top_k", 0, 100, 1, 0, "from so many likeliest only; 0: from all"],
  ["top_p", 0.05, 1, 0.01, 1, "from the likeliest that together hold this share"],
  ["min_p", 0, 0.5, 0.01, 0, "none below this share of the likeliest one's"],
  ["repetition_penalty", 0.5, 2, 0.05, 1, "above 1: what was there already is less likely"],
  ["presence_penalty", -2, 2, 0.1, 0, "less likely once it was written"],
  ["frequency_penalty", -2, 2, 0.1, 0, "less likely each time it was written"],
];

let writing = null; // an AbortController while a text comes
let asking = null; // one while a character is asked about
let last = null; // of the text that is shown: { model, state, heldBack }
let chooser = null;

export function begin() {
  at("write-sliders").replaceChildren(...SLIDERS.map(slider));
  at("write-form").addEventListener("submit", telling(writeAnew, { again: true }));
  at("write-stop-button").addEventListener("click", () => writing?.abort());
  at("write-on").addEventListener("click", telling(writeOn));
  at("write-copy").addEventListener("click", telling(copy));
  at("write-model").addEventListener("change", telling(listCheckpoints, { again: true }));
  chooser = new Chooser(at("written"), (index) => explain(index).catch(complain));
  takeUp(kept(KEPT));
  keepAtTheEnd(KEPT, () => ({
    prompt: at("write-prompt").value,
    written: at("written").textContent,
    model: last?.model,
    state: last?.heldBack ? null : last?.state, // with the rest of the text it would go on from before its end
  }));
}

/** What was there before the page was loaded anew. */
function takeUp(before) {
  if (!before) return;
  at("write-prompt").value = before.prompt;
  at("written").append(before.written);
  if (before.model) last = { model: before.model, state: before.state };
  busy(false);
}

function slider([name, min, max, step, value, hint]) {
  const id = `write-${name}`;
  const output = element("output", { "aria-live": "off" }, String(value)); // a slider tells its value itself
  const input = element("input", { id, type: "range", min, max, step, "aria-describedby": `${id}-hint` });
  input.value = String(value);
  input.addEventListener("input", () => {
    output.textContent = input.value;
  });
  const label = element("label", { htmlFor: id }, name.replaceAll("_", " "), output);
  return element("p", {}, label, input, element("small", { id: `${id}-hint` }, hint));
}

/** Show the form, for the model of an id if one is given. */
export async function show(modelId) {
  const models = await everything("models");
  if (modelId && !models.some((one) => one.id === modelId)) models.push(await get(path("models", modelId)));
  fill(at("write-model"), models.map((one) => [one.id, nameOf(one)]));
  if (modelId) at("write-model").value = modelId;
  await listCheckpoints();
  if (!models.length) say("There is no model yet: train one first. It can write from its first checkpoint on.");
}

/** Those of the model that is chosen now, whichever answer comes first. */
async function listCheckpoints() {
  const id = at("write-model").value;
  const rows = id ? (await get(path("models", id, "checkpoints"))).data : [];
  if (at("write-model").value !== id) return;
  fill(at("write-checkpoint"), [
    ["", "best"],
    ["latest", "latest"],
    ...rows.filter((one) => !one.corrupted).map((one) => [String(one.step), `step ${count(one.step)}${one.val_loss ? ` (${loss(one.val_loss)})` : ""}`]),
  ]);
}

/** What the sliders and fields say; the seed as text, since it may have more digits than a number of JavaScript. */
function settings() {
  const told = Object.fromEntries(SLIDERS.map(([name]) => [name, Number(at(`write-${name}`).value)]));
  told.max_characters = Number(at("write-max").value);
  if (!Number.isInteger(told.max_characters)) throw new Mistake("Characters must be a whole number.");
  const stops = at("write-stop").value.split("\n").filter((line) => line !== "");
  told.stop = stops.map((line) => line.replaceAll("\\n", "\n").replaceAll("\\t", "\t"));
  told.unknown = at("write-unknown").checked ? "skip" : "refuse";
  return told;
}

function seed() {
  const told = seedOf(at("write-seed").value);
  if (told === null) throw new Mistake("The seed must be a whole number from 0 to 9223372036854775807, in digits.");
  return told;
}

function chosenModel() {
  const id = at("write-model").value;
  if (!id) throw new Mistake("There is no model to write with yet: train one first.");
  const checkpoint = at("write-checkpoint").value;
  return checkpoint ? `${id}@${checkpoint}` : id;
}

async function writeAnew() {
  const prompt = at("write-prompt").value;
  await write({ model: chosenModel(), prompt }, prompt, seed());
}

/** On from the end: by its state, or, where there is none, by reading the text again. */
async function writeOn() {
  const { state, model } = last;
  if (!state) return write({ model, prompt: endOf(at("written").textContent) }, null, "");
  try {
    await write({ model, continue_from: state }, null, "");
  } catch (error) {
    // It is taken never again, as when its checkpoint is gone or damaged. No setting and no moment is to blame for that.
    const ofState = GONE.has(error.status) || error.errors?.some(({ field }) => field === "continue_from");
    if (ofState && last.state === state) last.state = null;
    throw error;
  }
}

/** What of a text is read again: no half of a character at its beginning. */
const endOf = (text) => text.slice(-MOST_READ_AGAIN).replace(/^[\udc00-\udfff]/, "");

/** On from a place of the text, with another character there. */
async function writeOtherwise(index, character) {
  const prompt = at("written").textContent.slice(0, index) + character;
  await write({ model: last.model, prompt: endOf(prompt) }, prompt, "");
}

/** Stream a text into the page. `given` is the prompt that a new text begins with, null to go on with the old one. */
async function write(source, given, seedText) {
  const body = jsonWith(seedText, { ...(seedText ? { seed: SEED } : {}), ...source, ...settings() });
  writing?.abort();
  asking?.abort();
  const mine = (writing = new AbortController());
  const focused = document.activeElement;
  busy(true);
  chooser.clear();
  explainPanel(at("written-else"));
  say("Writing …");
  try {
    const answer = await call("POST", "generate", { json: body, headers: { Accept: "text/event-stream" }, signal: mine.signal });
    const holder = at("written");
    holder.scrollIntoView({ block: "nearest" });
    if (given !== null) holder.replaceChildren(element("span", { className: "given" }, given));
    else last.heldBack?.remove(); // the text that goes on begins with it
    const model = `${answer.headers.get("X-Model")}@${answer.headers.get("X-Checkpoint-Step")}`;
    last = { model, state: null };
    const seedTold = answer.headers.get("X-Seed");
    at("write-told").textContent = `seed ${seedTold}, checkpoint ${count(Number(answer.headers.get("X-Checkpoint-Step")))}`;
    const node = holder.appendChild(document.createTextNode(""));
    let ended = false;
    for await (const { event, data } of eventsOf(answer)) {
      if (event === "error") throw new Refused(503, data, null);
      if (event === "done") {
        ended = true;
        last.state = data.state;
        // The last characters may be the beginning of a stop text; as long as nobody goes on they are part of the text.
        last.heldBack = data.held_back ? holder.appendChild(document.createTextNode(data.held_back)) : null;
        say({ length: "The text has as many characters as asked for.", stop: "The text came to a stop text." }[data.finish_reason] ?? `The text ended: ${data.finish_reason}.`);
      } else node.appendData(data.text);
    }
    if (!ended) throw new Mistake("The text broke off: the service ended the connection.");
  } catch (error) {
    if (error.name === "AbortError" && writing !== mine) return; // another text comes
    if (error.name === "AbortError") say("Stopped.");
    else throw error.code === "unknown_character" ? new Mistake(`${error.message}\n“Leave out characters of the prompt …” under “More” writes without them.`) : error;
  } finally {
    if (writing === mine) {
      writing = null;
      busy(false);
      // A button that was disabled meanwhile, or one of the alternatives, which are gone.
      if (document.activeElement === document.body) (focused?.isConnected ? focused : at("written")).focus({ preventScroll: true });
    }
  }
}

function busy(is) {
  at("write-stop-button").disabled = !is;
  at("write-on").disabled = is || !last;
  at("write-copy").disabled = !last;
}

async function copy() {
  if (navigator.clipboard) {
    await navigator.clipboard.writeText(at("written").textContent);
    return say("Copied.");
  }
  at("written").focus(); // browsers give the clipboard to pages of https and of this machine alone
  getSelection().selectAllChildren(at("written"));
  say("The text is selected: Ctrl+C copies it.");
}

/** What else the character at a place might have been, as the model saw it: before temperature and filters. */
async function explain(index) {
  asking?.abort();
  const mine = (asking = new AbortController());
  const panel = at("written-else");
  for (const one of panel.querySelectorAll("button")) one.disabled = true; // they are of the character of before
  await new Promise((resolve) => setTimeout(resolve, SOON));
  if (!last || mine.signal.aborted) return;
  const text = at("written").textContent;
  const character = String.fromCodePoint(text.codePointAt(index));
  const scored = endOf(text.slice(0, index + character.length));
  const told = await post("score", { model: last.model, text: scored, top: TOP, unknown: "skip" }, { signal: mine.signal }).catch((error) => {
    if (error.code === "empty_text") return { text: [] };
    throw error;
  });
  if (mine.signal.aborted) return;
  // Of a prompt the model reads what its normalization and its vocabulary leave.
  if (told.text.at(-1) !== character) return explainPanel(panel, `The model does not read ${visible(character)} as it stands here: it is unknown to it, or becomes another character.`);
  showAlternatives(panel, {
    character,
    logProbability: told.log_probabilities.at(-1),
    top: told.top.at(-1),
    take: writing ? null : (other) => writeOtherwise(index, other).catch(complain),
  });
}
