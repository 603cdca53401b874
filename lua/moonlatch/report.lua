--- Diagnostics to text: what operators read.
--
-- A diagnostic is { file, line, column, width, level, code, text, hint }: level "error" or "warning", hint one suggestion or nil.
-- column and width count bytes, as editors' file:line:col does. Codes are stable:
--   errors    syntax load global unknown-word unknown-option missing-option wrong-type wrong-value unknown-provider unknown-field
--             unreachable hole route-matches-all duplicate-header duplicate-name shared-state not-built
--   warnings  downgrade slow-pattern always-true no-return
local report = {}

local SHOWN, TEXT_MAX = 100, 400

local function before(a, b)
  if a.file ~= b.file then return a.order < b.order end
  if a.line ~= b.line then return a.line < b.line end
  if a.column ~= b.column then return a.column < b.column end
  if a.level ~= b.level then return a.level == "error" end
  if a.code ~= b.code then return a.code < b.code end
  return a.text < b.text
end

local function same(a, b)
  return b and a.file == b.file and a.line == b.line and a.column == b.column and a.code == b.code and a.text == b.text
end

-- Line number `line` of source, printable and of a length that fits a terminal.
local function source_line(source, line)
  local at = 1
  for _ = 2, line do
    local newline = source:find("\n", at, true)
    if not newline then return nil end
    at = newline + 1
  end
  local text = source:sub(at, (source:find("\n", at, true) or #source + 1) - 1)
  return (text:sub(1, 240):gsub("[%c\127]", " "))
end

local function render(d, sources)
  local what = d.text:sub(1, TEXT_MAX):gsub("[%c\127]", " ")
  local lines = { ("%s:%d:%d: %s[%s]: %s"):format(d.file, d.line, d.column, d.level, d.code, what) }
  local text = source_line(sources[d.file] or "", d.line)
  local hint = d.hint and " " .. d.hint:sub(1, TEXT_MAX):gsub("[%c\127]", " ") or ""
  if text and d.column <= #text + 1 then
    local width = math.max(1, d.width or #text:match("^%s*(.-)%s*$"))
    lines[#lines + 1] = ("%5d | %s"):format(d.line, text)
    lines[#lines + 1] = ("      | %s%s%s"):format((" "):rep(d.column - 1), ("^"):rep(math.min(width, 240)), hint)
  elseif d.hint then
    lines[#lines + 1] = "      |" .. hint
  end
  return table.concat(lines, "\n")
end

--- text, errors, warnings of a list of diagnostics. sources: file name -> its text; order of files: files, the policy first.
function report.render(diagnostics, sources, files)
  local rank = {}
  for i, file in ipairs(files) do rank[file] = i end
  for _, d in ipairs(diagnostics) do d.order = rank[d.file] or #files + 1 end
  table.sort(diagnostics, before)
  local lines, count, last = {}, { error = 0, warning = 0 }, nil
  for _, d in ipairs(diagnostics) do
    if not same(d, last) then
      count[d.level] = count[d.level] + 1
      if #lines < SHOWN then lines[#lines + 1] = render(d, sources) end
    end
    last = d
  end
  local hidden = count.error + count.warning - #lines
  if hidden > 0 then lines[#lines + 1] = ("... and %d more"):format(hidden) end
  return table.concat(lines, "\n") .. (#lines > 0 and "\n" or ""), count.error, count.warning
end

return report
