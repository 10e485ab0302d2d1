// Tables that are wider than their place say so.
const mark = ({ target }) => {
  const wide = target.scrollWidth > target.clientWidth + 1;
  target.parentElement.querySelector(".hint").hidden = !wide;
};
const watch = new ResizeObserver((entries) => entries.forEach(mark));
for (const wide of document.querySelectorAll(".wide")) watch.observe(wide);
