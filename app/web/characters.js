// A text whose characters can be chosen one by one: by a click, or with the arrow keys.

/**
 * Calls `choose(index)` with the place, in UTF-16 units, of a character of `holder`'s text; the holder is a focusable
 * element whose text lies in any number of nodes. What is chosen is the page's selection, so that it is seen.
 */
export class Chooser {
  constructor(holder, choose) {
    this.holder = holder;
    this.choose = choose;
    this.index = null;
    holder.addEventListener("click", (event) => this.#click(event));
    holder.addEventListener("keydown", (event) => this.#key(event));
  }

  get text() {
    return this.holder.textContent;
  }

  /** Nothing is chosen any more. */
  clear() {
    this.index = null;
  }

  #nodes() {
    const walker = document.createTreeWalker(this.holder, NodeFilter.SHOW_TEXT);
    const found = [];
    for (let begin = 0; walker.nextNode(); begin += walker.currentNode.length) found.push({ node: walker.currentNode, begin });
    return found;
  }

  #range(index) {
    const end = index + String.fromCodePoint(this.text.codePointAt(index)).length;
    const place = (at, isEnd) => this.#nodes().find(({ node, begin }) => (isEnd ? at <= begin + node.length : at < begin + node.length));
    const [from, to] = [place(index, false), place(end, true)];
    const range = document.createRange();
    range.setStart(from.node, index - from.begin);
    range.setEnd(to.node, end - to.begin);
    return range;
  }

  #click(event) {
    const selection = getSelection();
    if (!selection.isCollapsed || !selection.focusNode) return; // the person marks a part of the text
    const found = this.#nodes().find(({ node }) => node === selection.focusNode);
    if (!found) return;
    // The caret stands at the nearer edge of a character: which of its neighbours was hit?
    const caret = found.begin + selection.focusOffset;
    const hit = [caret, caret - 1].find((index) => {
      if (index < 0 || index >= this.text.length) return false;
      return [...this.#range(this.#whole(index)).getClientRects()].some(
        (box) => event.clientX >= box.left && event.clientX <= box.right && event.clientY >= box.top && event.clientY <= box.bottom,
      );
    });
    const index = hit ?? Math.min(caret, this.text.length - 1);
    if (index >= 0) this.#take(this.#whole(index));
  }

  /** Where the character begins of which this is a part. */
  #whole(index) {
    const unit = this.text.charCodeAt(index);
    return unit >= 0xdc00 && unit <= 0xdfff && index > 0 ? index - 1 : index;
  }

  #key(event) {
    const { text } = this;
    if (!text.length || event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) return;
    const known = this.index !== null && this.index < text.length; // it may have been another text
    const at = known ? this.index : text.length;
    let to;
    if (event.key === "ArrowRight") to = !known ? 0 : at + String.fromCodePoint(text.codePointAt(at)).length;
    else if (event.key === "ArrowLeft") to = at - 1;
    else if (event.key === "Home") to = 0;
    else if (event.key === "End") to = text.length - 1;
    else return;
    event.preventDefault();
    if (to >= 0 && to < text.length) this.#take(this.#whole(to));
  }

  #take(index) {
    this.index = index;
    const range = this.#range(index);
    getSelection().setBaseAndExtent(range.startContainer, range.startOffset, range.endContainer, range.endOffset);
    show(range.getBoundingClientRect());
    this.choose(index);
  }
}

const NARROW = "(max-width: 44rem)"; // as in page.css, where what is told of the character then covers the lower half

/** Scroll so that a box can be seen. */
function show(box) {
  const lowest = innerHeight * (matchMedia(NARROW).matches ? 0.5 : 1);
  if (box.top < 0 || box.bottom > lowest) scrollBy({ top: box.top - 0.25 * innerHeight });
}
