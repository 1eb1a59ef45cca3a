// A text, coloured by how little the model expected each of its characters.

import { explainPanel, showAlternatives } from "./alternatives.js";
import { everything, post } from "./api.js";
import { Chooser } from "./characters.js";
import { at, count, element, fill, nameOf } from "./dom.js";
import { Mistake, say, telling } from "./say.js";

const TOP = 8;
/** Bits from which on a character has the next darker colour. */
const EDGES = [1, 2, 4, 6, 8, 11];
const MOST_CHARACTERS = 20_000;

let models = [];
let told = null; // what the service said of the text that is shown
let chooser = null;
let places = []; // where each of its characters begins

export function begin() {
  at("surprise-form").addEventListener("submit", telling(colour));
  at("surprise-legend").replaceChildren(
    "Surprise in bits: ",
    ...["less than 1", ...EDGES.map((edge, n) => (n + 1 < EDGES.length ? `${edge} to ${EDGES[n + 1]}` : `${edge} and more`))].map((text, n) =>
      element("span", { className: `s${n}` }, text),
    ),
  );
  chooser = new Chooser(at("surprised"), explain);
}

export async function show() {
  models = await everything("models");
  fill(at("surprise-model"), models.map((one) => [one.id, nameOf(one)]));
  if (!models.length) say("There is no model yet: train one first.");
}

async function colour() {
  const model = models.find((one) => one.id === at("surprise-model").value);
  if (!model) throw new Mistake("There is no model to ask yet: train one first.");
  if (!at("surprise-text").value) throw new Mistake("There is no text to colour: paste one.");
  const length = [...at("surprise-text").value].length;
  if (length > MOST_CHARACTERS) throw new Mistake(`At most ${count(MOST_CHARACTERS)} characters can be coloured, not ${count(length)}.`);
  say("Asking …");
  [told, places] = [null, []];
  chooser.clear();
  at("surprised").replaceChildren();
  explainPanel(at("surprised-else"));
  at("surprise-told").textContent = "";
  const unknown = at("surprise-unknown").checked ? "skip" : "refuse";
  told = await post("score", { model: model.id, text: at("surprise-text").value, top: TOP, unknown });
  const holder = at("surprised");
  let place = 0;
  let run = "";
  let shade = null;
  const flush = () => {
    if (run) holder.append(element("span", { className: `s${shade}` }, run));
    run = "";
  };
  told.text.forEach((character, n) => {
    places.push(place);
    place += character.length;
    const bits = -told.log_probabilities[n] / Math.LN2;
    const mine = EDGES.filter((edge) => bits >= edge).length;
    if (mine !== shade) flush();
    shade = mine;
    run += character;
  });
  flush();
  at("surprise-legend").hidden = false;
  at("surprise-told").textContent = `${count(told.characters)} characters, ${told.bits_per_character.toFixed(3)} bits each, perplexity ${told.perplexity.toFixed(2)}`;
  say("Coloured.");
}

function explain(index) {
  const n = places.indexOf(index);
  if (n < 0 || !told) return;
  const text = at("surprised").textContent;
  showAlternatives(at("surprised-else"), {
    character: String.fromCodePoint(text.codePointAt(index)),
    logProbability: told.log_probabilities[n],
    top: told.top[n],
  });
}
