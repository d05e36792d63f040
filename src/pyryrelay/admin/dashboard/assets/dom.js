// Builds elements. Whatever is text becomes a text node, so nothing that a client sends is ever read as HTML.

/** Make an element: properties begin with a dot, other names are attributes, `on` has listeners. */
export function el(tag, options = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (name === "on") {
      for (const [event, listener] of Object.entries(value)) made.addEventListener(event, listener);
    } else if (value !== undefined && value !== null && value !== false) {
      made.setAttribute(name, value === true ? "" : String(value));
    }
  }
  made.append(...children.map((child) => (child instanceof Node ? child : document.createTextNode(String(child)))));
  return made;
}

/** Replace the content of an element. */
export function fill(element, ...children) {
  element.replaceChildren(...children.map((child) => (child instanceof Node ? child : document.createTextNode(String(child)))));
}

/** Change the text of an element, if it is another: screen readers announce changes of live regions. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export const byId = (id) => document.getElementById(id);

/** Return the rows of a table as elements; each row is a list of cells. */
export function rows(table) {
  return table.map((cells) => el("tr", {}, ...cells.map((cell) => (cell instanceof HTMLTableCellElement ? cell : el("td", {}, cell)))));
}
