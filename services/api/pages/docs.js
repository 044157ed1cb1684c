// Fetches the description with the key that is typed in, and sends that key with each request that is tried out. The key is kept in this
// page's memory alone: not in a cookie, a URL or the browser's storage.
"use strict";

const said = document.getElementById("said");

async function open(key) {
  const authorization = `Bearer ${key}`;
  const answer = await fetch("openapi.json", { headers: { Authorization: authorization }, cache: "no-store" });
  const body = await answer.json();
  if (!answer.ok) {
    said.textContent = body.detail;
    return;
  }
  said.textContent = `${body.info.title} ${body.info.version}`;
  SwaggerUIBundle({
    spec: body,
    dom_id: "#interface",
    deepLinking: true,
    validatorUrl: null,
    docExpansion: "none",
    requestInterceptor: (request) => {
      request.headers.Authorization = authorization;
      return request;
    },
  });
}

document.getElementById("open").addEventListener("submit", (event) => {
  event.preventDefault();
  open(document.getElementById("key").value.trim()).catch((error) => {
    said.textContent = `The service did not answer: ${error.message}`;
  });
});
