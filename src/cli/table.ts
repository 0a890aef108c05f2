// A table in box-drawing characters, as etcd's tools print it (tablewriter with its defaults): titles upper-case and centered,
// cells to the right, nothing between rows. Widths are terminal cells: a wide character takes two.

const wide: RegExp =
  /[\u1100-\u115f\u2e80-\u303e\u3041-\u33ff\u3400-\u4dbf\u4e00-\u9fff\ua000-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6\u{1f300}-\u{1faff}\u{20000}-\u{3fffd}]/u;

function widthOf(text: string): number {
  let width = 0;
  for (const char of text) width += wide.test(char) ? 2 : /\p{M}/u.test(char) ? 0 : 1;
  return width;
}

export function tableText(titles: readonly string[], rows: readonly (readonly string[])[]): string {
  const heads = titles.map((title) => title.replaceAll('_', ' ').toUpperCase());
  const widths = heads.map((head, column) => Math.max(widthOf(head), ...rows.map((row) => widthOf(row[column] ?? ''))));
  const border = (left: string, middle: string, right: string): string =>
    `${left}${widths.map((width) => '─'.repeat(width + 2)).join(middle)}${right}\n`;
  const line = (cells: readonly string[]): string => `│ ${cells.join(' │ ')} │\n`;
  const head = heads.map((text, column) => {
    const space = widths[column]! - widthOf(text);
    const before = Math.floor(space / 2);
    return `${' '.repeat(before)}${text}${' '.repeat(space - before)}`;
  });
  const body = rows.map((row) =>
    line(widths.map((width, column) => `${' '.repeat(width - widthOf(row[column] ?? ''))}${row[column] ?? ''}`)),
  );
  if (rows.length === 0) return border('┌', '┬', '┐') + line(head) + border('└', '┴', '┘');
  return border('┌', '┬', '┐') + line(head) + border('├', '┼', '┤') + body.join('') + border('└', '┴', '┘');
}
