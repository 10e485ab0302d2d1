// Plays the sounds of the chosen exhibit. All keep the same place when another is switched to.
const player = document.querySelector(".player");
if (player) {
  const [button, sides, place, title] = ["button", ".sides", "input", ".title"].map((each) => player.querySelector(each));
  let sounds = [];
  let current = null;
  document.documentElement.classList.add("scripted");

  const show = () => {
    const playing = current && !current.paused;
    button.textContent = playing ? "Pause" : "Play";
    sounds.forEach(({ audio }, at) => sides.children[at].setAttribute("aria-pressed", String(audio === current)));
    place.max = current?.duration || 1;
    place.value = current?.currentTime ?? 0;
    place.setAttribute("aria-valuetext", `${Math.round(place.value)} seconds`);
  };

  const switchTo = (audio, play) => {
    if (current && audio !== current) {
      current.pause();
      audio.currentTime = current.ended ? 0 : current.currentTime;
    }
    current = audio;
    if (play) audio.play().catch(() => undefined);
    show();
  };

  const side = ({ audio, name }) => {
    const choice = document.createElement("button");
    choice.type = "button";
    choice.textContent = name;
    choice.addEventListener("click", () => switchTo(audio, true));
    for (const event of ["play", "pause", "timeupdate", "durationchange"]) audio[`on${event}`] = show;
    return choice;
  };

  const open = ({ exhibit, play }) => {
    const figures = [...exhibit.querySelectorAll("[data-sound]")];
    player.hidden = !figures.length;
    player.classList.toggle("used", play);
    title.textContent = exhibit.querySelector("h3").textContent;
    sounds = figures.map((figure) => ({
      audio: document.getElementById(figure.dataset.sound),
      name: figure.querySelector("figcaption").textContent,
    }));
    for (const { audio } of sounds) audio.preload = "auto";
    sides.replaceChildren(...sounds.map(side));
    if (sounds.length) switchTo(sounds.at(-1).audio, play);
    else current?.pause();
  };

  document.addEventListener("exhibit", (event) => open(event.detail));
  button.addEventListener("click", () => (current.paused ? current.play() : current.pause()));
  place.addEventListener("input", () => {
    current.currentTime = Number(place.value);
  });

  // Keys count only where sounds are chosen, so that they do not disturb a screen reader's own.
  document.addEventListener("keydown", (event) => {
    const within = event.target.closest?.(
      ".player, .gallery, .wide:has(a[href^='#trial-']), .canvas",
    );
    if (!within || player.hidden || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape") current.pause();
    if (event.key === "x") {
      const at = sounds.findIndex(({ audio }) => audio === current);
      switchTo(sounds[(at + 1) % sounds.length].audio, true);
    }
  });
}
