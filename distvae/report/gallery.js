// A gallery shows one exhibit at a time: that of the link, point or row that was chosen last.
const exhibits = [...document.querySelectorAll(".gallery article")];
const links = [...document.querySelectorAll('a[href^="#trial-"]')];
const target = (link) => document.getElementById(link.getAttribute("href").slice(1));

const choose = (exhibit, play) => {
  for (const each of exhibits) each.hidden = each !== exhibit;
  for (const link of links) {
    const chosen = target(link) === exhibit;
    if (chosen) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
    link.closest("tr")?.classList.toggle("chosen", chosen);
  }
  document.dispatchEvent(new CustomEvent("exhibit", { detail: { exhibit, play } }));
};

// A row stands for the link in it, unless another control was clicked or text is being selected.
const clicked = (element) => {
  const control = element.closest("a, button, input, summary, audio");
  if (control) return control.matches('a[href^="#trial-"]') ? control : null;
  if (String(window.getSelection())) return null;
  return element.closest("tr")?.querySelector('a[href^="#trial-"]');
};

document.addEventListener("click", (event) => {
  const link = clicked(event.target);
  if (!link) return;
  event.preventDefault();
  const exhibit = target(link);
  choose(exhibit, true);
  if (!exhibit.querySelector(".sounds")) exhibit.scrollIntoView({ block: "nearest" });
});

for (const list of document.querySelectorAll(".gallery .list")) {
  list.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const items = [...list.querySelectorAll("a")];
    const next = items[items.indexOf(document.activeElement) + step];
    if (!next) return;
    next.focus();
    choose(target(next), true);
    event.preventDefault();
  });
}

if (exhibits.length) {
  const named = exhibits.find((each) => each.id && `#${each.id}` === window.location.hash);
  window.addEventListener("DOMContentLoaded", () => choose(named ?? exhibits[0], false));
}
