// Tables that are wider than their place say so.
const mark = ({ target }) => {
  const wide = target.closest(".wide");
  wide.parentElement.querySelector(".hint").hidden = wide.scrollWidth <= wide.clientWidth + 1;
};
const watch = new ResizeObserver((entries) => entries.forEach(mark));
for (const part of document.querySelectorAll(".wide, .wide table")) watch.observe(part);
