return require("moonlatch.circle")
