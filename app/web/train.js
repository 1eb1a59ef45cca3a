// The form of a training. Settings, their ranges and words come from the API's own document.

import { everything, get, jsonWith, path, post, SEED, seedOf } from "./api.js";
import { at, element, fill, marked, nameOf } from "./dom.js";
import { goTo, Mistake, say, telling } from "./say.js";

let settings = null;

export function begin() {
  at("train-form").addEventListener("submit", telling(start));
  at("train-start").addEventListener("change", () => {
    at("train-preset").disabled = at("train-start").value !== "";
  });
  at("train-details").addEventListener("input", countSettings);
}

/** Show the form, for the text of an id if one is given. */
export async function show(corpusId) {
  const [corpora, models] = await Promise.all([everything("corpora"), everything("models"), describeSettings()]);
  if (corpusId && !corpora.some((one) => one.id === corpusId)) corpora.push(await get(path("corpora", corpusId)));
  fill(at("train-corpus"), corpora.map((one) => [one.id, `${one.name} (${one.characters.toLocaleString("en")})`]));
  fill(at("train-start"), [["", "a new network"], ...models.map((one) => [one.id, nameOf(one)])]);
  if (corpusId) at("train-corpus").value = corpusId;
  if (!corpora.length) say("There is no text yet: upload one first.");
}

/** A field for each setting, once. */
async function describeSettings() {
  if (settings) return;
  const { components } = await get("openapi.json");
  settings = { model: components.schemas.ModelSettings.properties, training: components.schemas.TrainingSettings.properties };
  for (const [section, fields] of Object.entries(settings)) {
    at(`train-${section}`).replaceChildren(
      ...Object.entries(fields).filter(([name]) => name !== "minutes").map(([name, schema]) => field(section, name, schema)),
    );
  }
}

function field(section, name, schema) {
  const id = `train-${section}-${name}`;
  const options = schema.anyOf?.flatMap((one) => one.enum ?? (one.const ? [one.const] : [])) ?? [];
  const placeholder = "chosen for you";
  let control;
  if (options.length) control = element("select", { id }, element("option", { value: "" }, placeholder), ...options.map((one) => element("option", { value: one }, one)));
  else if (name === "seed") control = element("input", { id, inputMode: "numeric", placeholder, autocomplete: "off" });
  else control = element("input", { id, type: "number", step: isWhole(schema) ? "1" : "any", min: schema.minimum, max: schema.maximum, placeholder });
  control.setAttribute("aria-describedby", `${id}-hint`);
  return element("p", {}, element("label", { htmlFor: id }, name.replaceAll("_", " ")), control, element("small", { id: `${id}-hint` }, ...marked(schema.description)));
}

const isWhole = (schema) => (schema.anyOf ?? [schema]).some((one) => one.type === "integer");
const controlOf = (section, name) => at(name === "minutes" ? "train-minutes" : `train-${section}-${name}`);

/** Whoever closes the settings sees that there are some. */
function countSettings() {
  const given = [...at("train-details").querySelectorAll("input, select")].filter((one) => one.value !== "" || one.validity.badInput);
  at("train-details").firstElementChild.textContent = given.length ? `All settings (${given.length} given)` : "All settings";
}

/** What was filled in of a section, as the API takes it; in place of the training's seed `SEED`. */
function given(section) {
  const told = {};
  for (const [name, schema] of Object.entries(settings[section])) {
    const control = controlOf(section, name);
    const words = name.replaceAll("_", " ");
    if (control.validity.badInput) throw new Mistake(`${words} must be a number.`); // its value is empty all the same
    if (control.value === "") continue;
    if (name === "seed") {
      if (seedOf(control.value) === null) throw new Mistake("seed must be a whole number from 0 to 9223372036854775807, in digits.");
      if (seedOf(control.value)) told.seed = SEED;
      continue;
    }
    const numeric = control.type === "number";
    told[name] = numeric ? Number(control.value) : control.value;
    if (numeric && isWhole(schema) && !Number.isInteger(told[name])) throw new Mistake(`${words} must be a whole number.`);
  }
  return told;
}

async function start() {
  await describeSettings(); // once more, where it did not come
  const model = given("model");
  const training = given("training");
  if (training.epochs || training.steps) delete training.minutes; // the one of the three that was asked for
  const request = { training, corpus: at("train-corpus").value };
  if (Object.keys(model).length) request.model = model;
  if (at("train-name").value) request.name = at("train-name").value.trim();
  if (at("train-start").value) request.from_checkpoint = at("train-start").value;
  else request.preset = at("train-preset").value;
  if (!request.corpus) throw new Mistake("There is no text to train on yet: upload one first.");
  const job = await post("jobs", jsonWith(seedOf(controlOf("training", "seed").value), request));
  if (!at("train").hidden) await goTo(`#runs/${job.id}`);
  say(`${job.name} is queued.`);
}
