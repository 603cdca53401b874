std = "lua54"
max_line_length = 140
self = false
include_files = { "lua/**/*.lua", "policies/*.lua", "spec/**/*.lua" }
exclude_files = { "spec/support/node_modules", "spec/support/policy_std.lua", "spec/lua/bad" }

stds.policy = dofile("spec/support/policy_std.lua") -- made from the vocabulary
files["spec"] = { std = "lua54+busted", max_line_length = false } -- tables of cases
files["policies"] = { std = "policy" }
files["spec/e2e/policies"] = { std = "policy" }
