// JSON as Go's encoding/json writes it: no spaces, fields in the order given, numbers of 64 bits as they are (JavaScript would
// round them), bytes as base64, and <, >, & escaped for HTML.

export type GoJson =
  | null
  | boolean
  | number
  | bigint
  | string
  | Buffer
  | readonly GoJson[]
  | { readonly [name: string]: GoJson | undefined };

export function goJson(value: GoJson): string {
  if (value === null) return 'null';
  if (typeof value === 'string') return goString(value);
  if (typeof value !== 'object') return String(value);
  if (Buffer.isBuffer(value)) return `"${value.toString('base64')}"`;
  if (Array.isArray(value)) return `[${value.map(goJson).join(',')}]`;
  const fields: string[] = [];
  for (const [name, field] of Object.entries(value)) {
    if (field !== undefined) fields.push(`${goString(name)}:${goJson(field)}`);
  }
  return `{${fields.join(',')}}`;
}

function goString(text: string): string {
  return JSON.stringify(text).replace(
    /[<>&\u2028\u2029]/g,
    (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}

/** `omitempty`: left out when false, zero, empty. */
export function unlessZero<T extends GoJson>(value: T | undefined): T | undefined {
  if (value === undefined || value === null || value === false || value === 0 || value === 0n || value === '')
    return undefined;
  if ((Buffer.isBuffer(value) || Array.isArray(value)) && value.length === 0) return undefined;
  return value;
}
