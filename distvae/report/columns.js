// A wide table shows the columns that fit, or those that the reader chose.
const HIDDEN = `distvae columns hidden in ${window.location.pathname}`;
// Browsers may refuse to keep anything for a file; the choice then lasts as long as the page.
const attempt = (access) => {
  try {
    return access(window.localStorage);
  } catch {
    return null;
  }
};

for (const chooser of document.querySelectorAll(".columns")) {
  const wide = chooser.parentElement.querySelector(".wide");
  const { rows } = wide.querySelector("table");
  const boxes = [...chooser.querySelectorAll("input")];
  const [all, fitting] = chooser.querySelectorAll("button");
  let chosen = false;

  const show = (isShown) => {
    boxes.forEach((box, at) => {
      box.checked = isShown(box);
      for (const row of rows) row.cells[at + 1].hidden = !box.checked;
    });
    const count = boxes.filter((box) => box.checked).length + 1;
    chooser.querySelector("summary").textContent = `Columns (${count} of ${boxes.length + 1} are shown)`;
  };

  const fit = () => {
    const hidden = new Set();
    const minor = boxes.filter((box) => box.hasAttribute("data-minor"));
    show(() => true);
    while (minor.length && wide.scrollWidth > wide.clientWidth + 1) {
      hidden.add(minor.pop());
      show((box) => !hidden.has(box));
    }
  };

  const choose = (isShown) => {
    show(isShown);
    chosen = true;
    const hidden = boxes.filter((box) => !box.checked).map((box) => box.value);
    attempt((storage) => storage.setItem(HIDDEN, JSON.stringify(hidden)));
  };

  chooser.addEventListener("change", () => choose((box) => box.checked));
  all.addEventListener("click", () => choose(() => true));
  fitting.addEventListener("click", () => {
    chosen = false;
    attempt((storage) => storage.removeItem(HIDDEN));
    fit();
  });
  window.addEventListener("resize", () => chosen || fit());

  chooser.hidden = false;
  const kept = attempt((storage) => JSON.parse(storage.getItem(HIDDEN)));
  if (Array.isArray(kept)) choose((box) => !kept.includes(box.value));
  else fit();
}
