"""English words of film and of pictures, for the tokenizer to know whole: other attributes than the six are made of them."""

WORDS = """
about above abstract across action actor actress afraid after afternoon age air airplane alarm alley alone along ambient
ambience amber among anger angle angry animal anxious apartment arch arm army around arrive art artificial asleep
atmosphere attack audience autumn awake away awe baby back background backlit bad balance balcony ball bar battle beach
beam beard beautiful beauty bed bedroom behind below bench bending beside between bicycle big bird black blade blood blue
blurred blurry boat body bold book border bottom box boy branch bread break breath bridge bright brightness brown
building burning bus busy calm camera candle canyon car card careful carpet carry castle cat cathedral cave ceiling center
chair chaos character chase cheerful child children chill church cinema cinematic circle city class classroom clean clear
cliff climb clock close closed closing cloth clothes cloud cloudy coast coat coffee cold color colorful colour comedy
comfort common complex composition computer concert conflict confused contrast cool corner corridor costume couch couple
courage cozy crane crash creature creepy crew cross crowd crowded crying curious curtain cut daily damp dance dancing
danger dangerous dark darkness dawn day daylight dead death deep deer dense depth desert desk despair detail dialogue
dialog dim dinner direct direction dirty distance distant dive dog door doorway double doubt down dragon drama dramatic
dream dreamy dress drink drive driver driving drone dry dull during dust dusk dynamic eager early earth eat eating edge
eerie elegant emotion emotional empty energy enter entrance epic escape evening event everyone evil exciting exit
explosion exposure expression exterior eye eyes fabric face faces factory fade faint fall falling family far farm fast
father fear feel feeling female fence fero few field fight fighting figure figures film final fine finger fire fireplace
fish flag flame flash flat flight floating flood floor flower fly flying focus fog foggy follow food foot for foreground
forest formal frame free fresh friend friendly front frozen full fun funny furniture future gallery game garden gas gate
gentle ghost giant girl glass gloomy glow going gold golden grain grass grave gray green grey grief grim ground group
grow guard guest guitar gun hair half hall hallway hand handheld hands hang happy harbor hard harsh hat haze head heart
heat heavy height helicopter help hero hidden hide high highway hill history hold holding hollow home hope horizon horror
horse hospital hot hotel hour house human humor hunt hurry ice icon idle image in indoor industrial injured insect inside
intense intensity interior interview intimate iron island jacket journey joy joyful judge jump jungle just key kill king
kiss kitchen knife ladder lake lamp land landscape large late laugh laughing layer lead leaf leaves leaving left leg
lens letter level library lie life light lighting lightning line liquid listen little living logo lonely lonesome long
look looking lost loud love low luck machine magic magical male man many map market mask massive material maybe meal
medium meeting melancholy memory menace men menacing metal middle midnight military mind mirror mist misty modern moment
money monster mood moody moon moonlight moral morning mother motion motorcycle mountain mountains mouth move movement
movie moving much mud museum music mysterious mystery narrow nature near neck neon nervous neutral new news night noise
noisy normal nose nostalgia nostalgic nothing number object ocean odd off office officer old on open orange order
ordinary other out outdoor outside over overhead pace painting pale pan panic paper park party past path pattern pause
peace peaceful people person phone photo picture pink place plain plane planet plant platform play playful playing police
pool poor portrait pose power powerful present pretty prison protect public purple quick quiet race radio rage rail rain
rainy reading real realistic red reflection relaxed relief remote rescue rest restaurant reveal rich ride right ring rise
risk river road rock romance romantic roof room rope rough round row ruin running rural rush sad sadness safe sail sand
scale scared scary scene school science screen sea season seat secret sense serene serious set shadow shadowy shape sharp
shelf shelter shine ship shirt shock shoe shooting shop shore short shot shoulder show sick side sign silence silent
silhouette silver simple singing single sitting size skin sky slow small smile smiling smoke smooth snow snowy social
soft soldier solemn solitude someone something song sorrow sound space spectacle speech speed spring stadium stage stair
stairs standing star stare station statue steady steam steel step still stone stop store storm stormy story strange
stranger street stress strong studio style subject subtle suburban subway sudden suit summer sun sunlight sunny sunrise
sunset surface surprise surreal suspense suspenseful sweet swim swimming sword symmetry table talking tall team tears
technology television temple tempo tender tense tension terror text texture the theater thick thin threat three thriller
tilt time tired title together tone top touch tower town toy track tracking traffic tragedy tragic train tranquil travel
tree triumph trouble truck tunnel turn two umbrella uncertain under underwater uneasy unfocused uniform unknown up urban
urgent valley vast vehicle very victory view village vintage violence violent vivid voice waiting walking wall war warm
warmth watch water waterfall wave weapon weather wedding weird wet wheel white whole wide wild wind window wine winter
witness woman women wonder wood wooden work worker world worried yard yellow young zoom
""".split()
