/** Python's strftime in the C locale. */
const days = ['Sunday', 'Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday'];
const months = [
  'January',
  'February',
  'March',
  'April',
  'May',
  'June',
  'July',
  'August',
  'September',
  'October',
  'November',
  'December',
];

/** ISO 8601 week number, and the year that the week belongs to. */
function isoWeek(time: Date): readonly [year: number, week: number] {
  const day = new Date(Date.UTC(time.getFullYear(), time.getMonth(), time.getDate()));
  // A week belongs to the year of its Thursday.
  day.setUTCDate(day.getUTCDate() + 4 - (day.getUTCDay() || 7));
  const first = Date.UTC(day.getUTCFullYear(), 0, 1);
  return [day.getUTCFullYear(), Math.ceil(((day.getTime() - first) / 864e5 + 1) / 7)];
}

/** Text or number of a directive; default width and padding of a number. */
type Field = readonly [value: string | number, width?: number, pad?: '0' | ' '];

function fieldsOf(time: Date): Readonly<Record<string, Field>> {
  const [isoYear, week] = isoWeek(time);
  const year = time.getFullYear();
  const dayOfYear = Math.round((Date.UTC(year, time.getMonth(), time.getDate()) - Date.UTC(year, 0, 0)) / 864e5);
  const day = time.getDay();
  const hour = time.getHours() % 12 || 12;
  const half = time.getHours() < 12 ? 'AM' : 'PM';
  return {
    a: [days[day]!.slice(0, 3)],
    A: [days[day]!],
    b: [months[time.getMonth()]!.slice(0, 3)],
    B: [months[time.getMonth()]!],
    C: [Math.floor(year / 100), 2],
    d: [time.getDate(), 2],
    e: [time.getDate(), 2, ' '],
    f: [time.getMilliseconds() * 1000, 6],
    g: [isoYear % 100, 2],
    G: [isoYear, 4],
    h: [months[time.getMonth()]!.slice(0, 3)],
    H: [time.getHours(), 2],
    I: [hour, 2],
    j: [dayOfYear, 3],
    k: [time.getHours(), 2, ' '],
    l: [hour, 2, ' '],
    m: [time.getMonth() + 1, 2],
    M: [time.getMinutes(), 2],
    n: ['\n'],
    p: [half],
    P: [half.toLowerCase()],
    s: [Math.floor(time.getTime() / 1000), 1],
    S: [time.getSeconds(), 2],
    t: ['\t'],
    u: [day || 7, 1],
    U: [Math.floor((dayOfYear + 6 - day) / 7), 2],
    V: [week, 2],
    w: [day, 1],
    W: [Math.floor((dayOfYear + 6 - ((day + 6) % 7)) / 7), 2],
    y: [year % 100, 2],
    Y: [year, 4],
    z: [''],
    Z: [''],
    '%': ['%'],
  };
}

const composed: Readonly<Record<string, string>> = {
  c: '%a %b %e %H:%M:%S %Y',
  D: '%m/%d/%y',
  F: '%Y-%m-%d',
  r: '%I:%M:%S %p',
  R: '%H:%M',
  T: '%H:%M:%S',
  x: '%m/%d/%y',
  X: '%H:%M:%S',
};
const WIDEST = 1000;

/** Formats in local time, with the flags and widths of glibc. Unknown directives are left unchanged. */
export function formatTime(format: string, time: Date): string {
  const fields = fieldsOf(time);
  return format.replace(/%([-_0^#]*)(\d*)[EO]?([a-zA-Z%])/g, (whole, flags: string, digits: string, letter: string) => {
    const wanted = Math.min(Number(digits || 0), WIDEST);
    let text: string;
    if (Object.hasOwn(composed, letter)) text = formatTime(composed[letter]!, time).padStart(wanted, ' ');
    else {
      const field = Object.hasOwn(fields, letter) ? fields[letter]! : undefined;
      if (field === undefined) return whole;
      const [value, width = 0, pad = '0'] = field;
      const own = typeof value === 'number' ? pad : ' ';
      const filler = flags.includes('_') ? ' ' : flags.includes('0') ? '0' : own;
      const least = flags.includes('-') && digits === '' ? 0 : Math.max(wanted, flags.includes('-') ? 0 : width);
      text = String(value).padStart(least, filler);
      if (flags.includes('#') && /[pP]/.test(letter)) text = text.toLowerCase();
      else if (flags.includes('#') && /[aAbBh]/.test(letter)) text = text.toUpperCase();
    }
    return flags.includes('^') ? text.toUpperCase() : text;
  });
}
