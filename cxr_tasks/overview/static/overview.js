// The page in Airflow: its theme, ways out of the frame that it stands in, the samples, and what people ask for.
"use strict";

// Airflow keeps the theme that a person chose here; "system" and nothing leave the choice to the browser.
function followTheme() {
  let chosen = null;
  try {
    chosen = localStorage.getItem("theme");
  } catch {
    // A browser that keeps nothing has no choice to follow.
  }
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
  else delete document.documentElement.dataset.theme;
}
followTheme();
addEventListener("storage", followTheme);

// Airflow's frame may open no window and leave no page by itself. A link in the page around the frame may.
function openOutside(address, where) {
  const around = parent.document;
  const link = around.createElement("a");
  link.href = address;
  link.target = where === "tab" ? "_blank" : "_self";
  link.rel = "noopener noreferrer";
  around.body.append(link);
  link.click();
  link.remove();
}

addEventListener("click", (event) => {
  const link = event.target.closest("a[data-open]");
  if (!link || event.defaultPrevented) return;
  const aside = event.ctrlKey || event.metaKey || event.shiftKey || link.dataset.open === "tab";
  if (parent === window) {
    if (link.dataset.open === "tab") {
      link.target = "_blank";
      link.rel = "noopener noreferrer";
    }
    return;
  }
  event.preventDefault();
  openOutside(link.href, aside ? "tab" : "here");
});

// Airflow's own API, as the person who looks at this page: the browser adds the cookie for this origin alone.
async function ask(method, address, body) {
  const answer = await fetch(address, {
    method,
    credentials: "same-origin",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  if (answer.ok) return answer.json();
  let why = `Airflow answers with ${answer.status}.`;
  try {
    const told = (await answer.json()).detail;
    if (typeof told === "string") why = told;
  } catch {
    // What is no JSON says nothing to people.
  }
  throw new Error(answer.status === 403 ? "Airflow does not let you do that." : why);
}

async function submitted(event) {
  const form = event.target;
  if (!form.matches("[data-answer], [data-rollback]")) return;
  event.preventDefault();
  const said = form.querySelector(".said");
  const given = new FormData(form);
  const buttons = form.querySelectorAll("button:not([hidden])");
  for (const button of buttons) button.disabled = true;
  said.textContent = "Asking Airflow …";
  try {
    if (form.dataset.answer) {
      const fields = { models: JSON.parse(form.dataset.models), reason: given.get("reason") || null };
      await ask("PATCH", form.dataset.answer, { chosen_options: [event.submitter.value], params_input: fields });
      said.textContent = "Your answer is kept. The run goes on.";
    } else {
      const conf = { model: given.get("model"), version: given.get("version"), reason: given.get("reason") };
      const run = await ask("POST", form.dataset.rollback, { logical_date: null, conf });
      const link = document.createElement("a");
      link.href = form.dataset.run + encodeURIComponent(run.dag_run_id);
      link.dataset.open = "here";
      link.textContent = "Look at it in Airflow";
      said.replaceChildren("The rollback has begun. ", link);
    }
  } catch (error) {
    said.textContent = error.message;
    for (const button of buttons) button.disabled = false;
  }
}

function showSamples(slider) {
  const names = slider.dataset.names.split(" ");
  const steps = slider.dataset.steps.split(" ").map((step) => Number(step).toLocaleString("en-US"));
  const picture = document.getElementById("sample");
  const play = document.getElementById("play");
  let timer = null;
  const show = () => {
    const at = Number(slider.value);
    picture.src = `samples/${slider.dataset.run}/${names[at]}.png`;
    picture.alt = `Generated X-rays at step ${steps[at]}: the same latents at every step, a row for each class`;
    document.getElementById("at").textContent = steps[at];
    slider.setAttribute("aria-valuetext", `step ${steps[at]}`);
  };
  const stop = () => {
    clearInterval(timer);
    timer = null;
    play.setAttribute("aria-pressed", "false");
    play.textContent = "Play";
  };
  slider.addEventListener("input", () => {
    stop();
    show();
  });
  play.addEventListener("click", () => {
    if (timer !== null) return stop();
    if (Number(slider.value) === names.length - 1) slider.value = "0";
    show();
    play.setAttribute("aria-pressed", "true");
    play.textContent = "Stop";
    timer = setInterval(() => {
      slider.value = String(Number(slider.value) + 1);
      show();
      if (Number(slider.value) === names.length - 1) stop();
    }, 700);
  });
  // All of them are small, and a slider that waits for each is none.
  for (const name of names) new Image().src = `samples/${slider.dataset.run}/${name}.png`;
}

async function lookAgain(region) {
  // Nothing is taken from under a person's hands, nor what was typed.
  const typed = [...region.querySelectorAll("input")].some((field) => field.value);
  if (document.hidden || typed || region.contains(document.activeElement)) return;
  try {
    const answer = await fetch(region.dataset.again, { credentials: "same-origin" });
    if (answer.ok) region.innerHTML = await answer.text();
  } catch {
    // Airflow is away for a moment: what was known stays.
  }
}

addEventListener("DOMContentLoaded", () => {
  document.addEventListener("submit", submitted);
  const run = document.getElementById("run");
  if (run) {
    run.form.querySelector("button").hidden = true;
    run.addEventListener("change", () => run.form.submit());
  }
  const slider = document.getElementById("step");
  if (slider) showSamples(slider);
  const region = document.getElementById("under-way");
  // How far work is, is asked of MLflow after the page is there.
  if (region.querySelector(".works")) lookAgain(region);
  setInterval(() => lookAgain(region), 10000);
});
