// The form of a training. Settings, their ranges and words come from the API's own document.

import { get, post } from "./api.js";
import { at, element, fill, marked, nameOf } from "./dom.js";
import { Mistake, say, telling } from "./say.js";

const MOST = 100;
let settings = null;

export function begin() {
  at("train-form").addEventListener("submit", telling(start));
  at("train-start").addEventListener("change", () => {
    at("train-preset").disabled = at("train-start").value !== "";
  });
}

/** Show the form, for the text of an id if one is given. */
export async function show(corpusId) {
  const [corpora, models] = await Promise.all([get(`corpora?limit=${MOST}`), get(`models?limit=${MOST}`), describeSettings()]);
  fill(at("train-corpus"), corpora.data.map((one) => [one.id, `${one.name} (${one.characters.toLocaleString("en")})`]));
  fill(at("train-start"), [["", "a new network"], ...models.data.map((one) => [one.id, nameOf(one)])]);
  if (corpusId) at("train-corpus").value = corpusId;
  if (!corpora.data.length) say("There is no text yet: upload one first.");
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
  const control = options.length
    ? element("select", { id }, element("option", { value: "" }, "chosen for you"), ...options.map((one) => element("option", { value: one }, one)))
    : element("input", { id, type: "number", step: isWhole(schema) ? "1" : "any", min: schema.minimum, max: schema.maximum, placeholder: "chosen for you" });
  control.setAttribute("aria-describedby", `${id}-hint`);
  return element("p", {}, element("label", { htmlFor: id }, name.replaceAll("_", " ")), control, element("small", { id: `${id}-hint` }, ...marked(schema.description)));
}

const isWhole = (schema) => (schema.anyOf ?? [schema]).some((one) => one.type === "integer");

/** What was filled in of a section, as the API takes it. */
function given(section) {
  const told = {};
  for (const [name, schema] of Object.entries(settings[section])) {
    const control = name === "minutes" ? at("train-minutes") : at(`train-${section}-${name}`);
    const isOpen = name === "minutes" || at("train-details").open;
    if (!isOpen || control.value === "") continue;
    const numeric = control.type === "number";
    told[name] = numeric ? Number(control.value) : control.value;
    if (numeric && isWhole(schema) && !Number.isInteger(told[name])) throw new Mistake(`${name.replaceAll("_", " ")} must be a whole number.`);
  }
  return told;
}

async function start() {
  const model = given("model");
  const training = given("training");
  if (training.epochs || training.steps) delete training.minutes; // the one of the three that was asked for
  const request = { corpus: at("train-corpus").value, training };
  if (Object.keys(model).length) request.model = model;
  if (at("train-name").value) request.name = at("train-name").value.trim();
  if (at("train-start").value) request.from_checkpoint = at("train-start").value;
  else request.preset = at("train-preset").value;
  if (!request.corpus) throw new Mistake("There is no text to train on yet: upload one first.");
  const job = await post("jobs", request);
  say(`${job.name} is queued.`);
  location.hash = `#runs/${job.id}`;
}
