const known = { string: "text", integer: "whole number", number: "number", boolean: "true or false",
  array: "list", object: "object", null: "null" };
function named(ref) {
  return ref.split("/").pop();
}
function kind(schema, depth = 0) {
  if (!schema) return "";
  if (schema.$ref) return named(schema.$ref);
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) {
    const all = schema.enum.map((one) => JSON.stringify(one));
    return all.slice(0, 8).join(" | ") + (all.length > 8 ? " | ..." : "");
  }
  const several = schema.anyOf || schema.oneOf;
  if (several && depth < 3 && !schema.properties) {
    return [...new Set(several.map((one) => kind(one, depth + 1)).filter(Boolean))].join(" | ");
  }
  if (Array.isArray(schema.type)) return schema.type.map((one) => known[one] || one).join(" | ");
  if (schema.type === "array" && schema.items && depth < 3) return "list of " + kind(schema.items, depth + 1);
  const bounds = [["minimum", "at least "], ["maximum", "at most "]]
    .filter(([name]) => schema[name] !== undefined && Math.abs(schema[name]) < 1e15)
    .map(([name, text]) => text + schema[name]);
  return [known[schema.type] || "any", ...bounds].join(", ");
}
function fields(place, schema, schemas) {
  const found = schema && schema.$ref ? schemas[named(schema.$ref)] : schema;
  if (!found || !found.properties) return;
  const must = found.required || [];
  const shown = make("table"), around = make("div", null, "scroll");
  const rows = Object.entries(found.properties).map(([name, one]) => [make("code", name),
    kind(one) + (must.includes(name) ? ", required" : ""),
    one.description || (one.$ref && schemas[named(one.$ref)].description) || ""]);
  const told = rows.some((cells) => cells[2]);
  table(shown, [["Field", "name"], ["Value", "why"], ...(told ? [["What", "why"]] : [])],
    told ? rows : rows.map((cells) => cells.slice(0, 2)));
  around.append(shown);
  place.append(around);
}
function operation(path, method, found, schemas) {
  const place = make("details", null, "operation"), head = make("summary");
  head.append(make("span", method.toUpperCase(), "method"), make("code", path), " ", make("span", found.summary, "soft small"));
  place.append(head);
  const body = found.requestBody && found.requestBody.content["application/json"].schema;
  if (body) {
    place.append(make("h3", "Body"));
    fields(place, body, schemas);
  }
  const parameters = found.parameters || [];
  if (parameters.length) {
    place.append(make("h3", "Headers and path"));
    const shown = make("table"), around = make("div", null, "scroll");
    table(shown, [["Name", "name"], ["Value", "why"]], parameters.map((one) => [make("code", one.name), kind(one.schema)]));
    around.append(shown);
    place.append(around);
  }
  place.append(make("h3", "Answers"));
  const answers = make("table"), around = make("div", null, "scroll");
  table(answers, [["Status", "name"], ["What", "why"], ["Body", "why"]], Object.entries(found.responses).map(([status, one]) =>
    [status, one.description, Object.entries(one.content || {}).map(([type, each]) => (type === "application/json" ? "" : type + " ") +
      kind(each.schema)).join(", ")]));
  around.append(answers);
  place.append(around);
  return place;
}
async function show() {
  try {
    const found = await (await fetch(base + "openapi.json")).json();
    const schemas = found.components.schemas;
    at("version").textContent = found.info.title + " " + found.info.version;
    at("about").textContent = found.info.description;
    const made = Object.entries(found.paths).flatMap(([path, methods]) =>
      Object.entries(methods).map(([method, one]) => operation(path, method, one, schemas)));
    at("paths").append(...made);
    const heading = make("h2", "Bodies of answers");
    heading.className = "operation";
    at("paths").append(heading);
    for (const [name, schema] of Object.entries(schemas)) {
      if (!schema.properties) continue;
      const place = make("details", null, "operation");
      place.id = name;
      place.append(make("summary", name));
      if (schema.description) place.append(make("p", schema.description, "soft small"));
      fields(place, schema, schemas);
      at("paths").append(place);
    }
    at("paths").hidden = false;
  } catch (error) {
    at("about").textContent = "The description of the API cannot be read: " + error.message;
  }
}
show();
