// The form says that it was sent; the page of a call follows it. Both also work without this file.
const SILENCE = 40_000; // milliseconds; the server is heard every 15 seconds
const LONGEST_WAIT = 30_000;

const news = document.getElementById("news");
const button = document.querySelector("button[data-busy]");

function follow(address, wait) {
  const source = new EventSource(address);
  let silence;

  function heard() {
    document.getElementById("lost").hidden = true;
    wait = 1000;
    clearTimeout(silence);
    silence = setTimeout(again, SILENCE);
  }

  function again() {
    source.close();
    clearTimeout(silence);
    setTimeout(follow, wait, address, Math.min(2 * wait, LONGEST_WAIT));
  }

  source.addEventListener("open", heard);
  source.addEventListener("beat", heard);
  source.addEventListener("message", (event) => {
    heard();
    const seen = JSON.parse(event.data);
    document.title = seen.title;
    for (const part of ["news", "steps"]) {
      document.getElementById(part).innerHTML = seen[part];
    }
    if (seen.is_over) {
      source.close();
      clearTimeout(silence);
    }
  });
  source.addEventListener("error", () => {
    document.getElementById("lost").hidden = false;
    // While it is CONNECTING the browser tries again by itself; an answer that is no stream makes it give up.
    if (source.readyState === EventSource.CLOSED) again();
  });
}

if (news?.dataset.events) follow(news.dataset.events, 1000);

if (button) {
  const label = button.textContent;
  button.form.addEventListener("submit", () => {
    button.textContent = button.dataset.busy;
    setTimeout(() => (button.disabled = true)); // after this form has been sent
  });
  addEventListener("pageshow", () => {
    button.textContent = label; // whoever comes back finds it as it was
    button.disabled = false;
  });
}
