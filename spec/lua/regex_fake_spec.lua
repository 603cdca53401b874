local regex = require("moonlatch.testing.regex")

describe("the fake host's regex", function()
  for _, case in ipairs {
    { "^a$", "a", true }, { "^a$", "ba", false }, { "a|b|", "c", true }, { "^(a|b)+c$", "abac", true }, { "^[^a-c]+$", "xyz", true },
    { "^[^a-c]+$", "xaz", false }, { "^[]a]+$", "a]", true }, { "^[a-]+$", "-a", true }, { "\\d{2,3}$", "x12", true }, { "^\\d{2}$", "123", false },
    { "^\\w+\\s\\S$", "a_1 x", true }, { "^a.c$", "a\nc", false }, { "\\.", "a", false }, { "^(?:ab)*$", "ababab", true }, { "^(a*)*$", "aaa", true },
    { "^$", "", true }, { "x$", "x\n", true }, { "^[\\d.]+$", "1.2", true },
  } do
    it(("%s on %q"):format(case[1], case[2]), function() assert.equal(case[3], regex.compile(case[1]):test(case[2])) end)
  end

  it("takes the leftmost, greedy or lazy", function()
    assert.equal("<a><b>", regex.compile("<.*>"):match("x<a><b>y"))
    assert.equal("<a>", regex.compile("<.*?>"):match("x<a><b>y"))
  end)

  it("replaces all, with groups", function()
    assert.equal("[b]-[d]-", regex.compile("a(.)"):replace("ab-ad-", "[$1]"))
    assert.equal("$1 ab0", regex.compile("(a)b"):replace("ab", "$$1 ${1}b0"))
    assert.equal("-a-b-", regex.compile("x*"):replace("ab", "-"))
  end)

  for _, pattern in ipairs { "(", ")", "a)", "[a", "*a", "a**", "a{x}", "(?=a)", "(?<n>a)", "\\1", "\\b", "[[:alpha:]]", "[b-a]", "a\\" } do
    it("refuses what it does not know: " .. pattern, function()
      local compiled, why = regex.compile(pattern)
      assert.is_nil(compiled)
      assert.is_string(why)
    end)
  end

  it("gives up on a runaway", function()
    assert.error_matches(function() return regex.compile("^(a+)+$"):test(("a"):rep(50) .. "b") end, "too many steps")
  end)
end)
