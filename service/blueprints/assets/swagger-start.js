// Starts Swagger UI; a file of its own, so that the page's content security policy needs no inline scripts.
const { openapi, redirect } = document.currentScript.dataset;

window.ui = SwaggerUIBundle({
  url: openapi,
  dom_id: "#swagger-ui",
  layout: "BaseLayout",
  presets: [SwaggerUIBundle.presets.apis],
  deepLinking: true,
  showExtensions: true,
  showCommonExtensions: true,
  oauth2RedirectUrl: window.location.origin + redirect,
  validatorUrl: null, // the default asks a public server to fetch this document
});
