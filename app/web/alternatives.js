// What a character might have been, as bars.

import { element, visible } from "./dom.js";

const percent = (share) => (share >= 0.0995 ? `${(100 * share).toFixed(0)} %` : share >= 0.0001 ? `${(100 * share).toFixed(2)} %` : "< 0.01 %");

/** Nothing is chosen: what the panel is for. Its first paragraph alone is told to who cannot see. */
export function explainPanel(panel, text = panel.dataset.hint) {
  const [first, ...others] = panel.children;
  panel.dataset.hint ??= first.textContent;
  first.replaceChildren(text ?? panel.dataset.hint);
  for (const other of others) other.remove();
}

/**
 * Show in `panel` the characters `top`, `{character, log_probability}` with the likeliest first, and the one that is
 * there; `take(character)`, if given, is offered for each.
 */
export function showAlternatives(panel, { character, logProbability, top, take }) {
  const share = Math.exp(logProbability);
  const rank = top.findIndex((one) => one.character === character);
  const all = rank < 0 ? [...top, { character, log_probability: logProbability }] : top;
  explainPanel(panel);
  panel.firstElementChild.replaceChildren(
    element("strong", {}, visible(character)),
    ` had ${percent(share)}, a surprise of ${(-logProbability / Math.LN2).toFixed(1)} bits.`,
  );
  panel.append(
    element(
      "ol",
      {},
      ...all.map((one) => {
        const likely = Math.exp(one.log_probability);
        const cells = [
          element("code", {}, visible(one.character)),
          element("meter", { min: 0, max: 1, value: likely, "aria-hidden": "true" }),
          element("span", { className: "share" }, percent(likely)),
        ];
        const taken = one.character === character ? " taken" : "";
        const cell = take
          ? element("button", { type: "button", className: taken.trim(), title: "Write on from here with this character", onclick: () => take(one.character) }, ...cells)
          : element("span", { className: `choice${taken}` }, ...cells);
        return element("li", {}, cell);
      }),
    ),
    ...(take ? [element("p", {}, element("small", {}, "Choose one, and the model writes on from there."))] : []),
  );
}
